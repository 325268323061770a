-- record: add a change to the list of who changed what, and forget the oldest past a bound.
-- KEYS  1 changes (stream)  2 how they ended (hash: id -> JSON)  3 how many bytes the changes have
--       4 how many were added under this quota
-- ARGV  1 the change (JSON)  2 how many are kept  3 how many bytes of them  4 the quota (0: none)  5 how long it counts (s)
-- Returns {id}, or {} where the quota is used up

local quota = tonumber(ARGV[4])
if quota > 0 then
  local count = redis.call('INCR', KEYS[4])
  if count == 1 then
    redis.call('EXPIRE', KEYS[4], ARGV[5])
  end
  if count > quota then
    return {}
  end
end
local id = redis.call('XADD', KEYS[1], '*', 'change', ARGV[1])
local bytes = redis.call('INCRBY', KEYS[3], #ARGV[1])
local over = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2])
while over > 0 or bytes > tonumber(ARGV[3]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', KEYS[1], oldest[1])
  redis.call('HDEL', KEYS[2], oldest[1])
  bytes, over = redis.call('DECRBY', KEYS[3], #oldest[2][2]), over - 1
end
return {id}
