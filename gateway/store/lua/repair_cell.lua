-- repair_cell: correct one amount of a report cell that is not what its entries say, and write down that it was.
-- uses: numbers
-- KEYS  1 sheet  2 ledger stream  3 revision of the books
-- ARGV  1 id of the entry  2 field  3 what is added to it (an integer)  4 JSON of the entry  5 revision that the audit read
-- Returns {"repaired", entry id} or {"changed"}: the books were repaired or trimmed since: audit them again

if (redis.call('GET', KEYS[3]) or '0') ~= ARGV[5] then return {'changed'} end
redis.call('HINCRBY', KEYS[1], ARGV[2], ARGV[3])
redis.call('INCR', KEYS[3])
local now = decimal(now_ms())
return {'repaired', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[1], 'cost', '0', 'at', now,
  'admitted', now, 'from_credit', '0', 'entry', ARGV[4])}
