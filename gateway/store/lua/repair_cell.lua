-- repair_cell: correct one amount of a report cell that is not what its entries say, and write down that it was.
-- KEYS  1 sheet  2 ledger stream
-- ARGV  1 id of the entry  2 field  3 what is added to it (an integer)  4 Redis's time (ms)  5 JSON of the entry
-- Returns {"repaired", entry id}

redis.call('HINCRBY', KEYS[1], ARGV[2], ARGV[3])
return {'repaired', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[1], 'cost', '0', 'at', ARGV[4],
  'admitted', ARGV[4], 'from_credit', '0', 'entry', ARGV[5])}
