-- claim_jobs: take image jobs that are due to be polled; nobody else takes them before their claim runs out.
-- KEYS  1 jobs due (score: next poll, ms)
-- ARGV  1 how many at most  2 how long the claim lasts (ms)
-- Returns the claimed members

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, member in ipairs(due) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), member)
end
return due
