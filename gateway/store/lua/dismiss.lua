-- dismiss: take a charge out of quarantine, and write down that someone did.
-- KEYS  1 quarantine  2 ledger stream
-- ARGV  1 id of its hold  2 the charge as it was read  3 id of the entry  4 JSON of the entry
-- Returns {"dismissed", entry id} or {"changed"}: it is gone, or is another
-- The first write frees memory, so that a full Redis takes it.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {'changed'} end
redis.call('HDEL', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {'dismissed', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[3], 'cost', '0', 'at', now,
  'admitted', now, 'from_credit', '0', 'entry', ARGV[4])}
