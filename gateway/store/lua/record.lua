-- record: add a change to the list of who changed what, and forget the oldest past a bound.
-- KEYS  1 changes (stream)  2 how they ended (hash: id -> JSON)
-- ARGV  1 the change (JSON)  2 how many are kept
-- Returns {id}

local id = redis.call('XADD', KEYS[1], '*', 'change', ARGV[1])
local over = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2])
if over > 0 then
  for _, oldest in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', over)) do
    redis.call('XDEL', KEYS[1], oldest[1])
    redis.call('HDEL', KEYS[2], oldest[1])
  end
end
return {id}
