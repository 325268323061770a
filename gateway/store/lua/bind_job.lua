-- bind_job: remember an image job as pending, for the call that names it first. Idempotent.
-- KEYS  1 job  2 jobs due  3 jobs of its hold  4 calls of its key that have jobs
-- ARGV  1 member of "jobs due"  2 JSON of the job  3 when it is first due (ms)  4 how long all of it is kept (ms)
--       5 its place among the images of its call  6 hold that paid for it  7 when it was submitted (ms)  8 so many calls of
--       a key are listed
-- Returns {"bound"}: now, or by the very same JSON before; it is not due again then
--      or {"foreign"}: it is another's, and stays that

if redis.call('HSETNX', KEYS[1], 'about', ARGV[2]) == 0 then
  return {redis.call('HGET', KEYS[1], 'about') == ARGV[2] and 'bound' or 'foreign'}
end
redis.call('HSET', KEYS[1], 'state', 'pending')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
redis.call('ZADD', KEYS[4], 'NX', ARGV[7], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', tonumber(ARGV[7]) - tonumber(ARGV[4]))
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -tonumber(ARGV[8]) - 1)
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return {'bound'}
