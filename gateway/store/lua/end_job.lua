-- end_job: end an image job that needs no refund; it is due no more. One that has ended stays as it did.
-- uses: job
-- KEYS  1 job  2 jobs due
-- ARGV  1 member of "jobs due"  2 hold that paid for it  3 its place among the images of its call  4 state  5 URL of its picture
--       6 how long it is kept from now (ms)
-- Returns {"ended", state, URL of its picture, amount that came back}: as it is now
--      or {"unbound"} or {"foreign"}: it is not this call's, and nothing changes

local job = redis.call('HMGET', KEYS[1], 'about', 'state', 'image_url', 'refunded')
local refused = not_own(job[1], ARGV[2], ARGV[3])
if refused then return {refused} end
redis.call('ZREM', KEYS[2], ARGV[1])
if job[2] ~= 'pending' then return {'ended', job[2], job[3] or '', tonumber(job[4] or 0)} end
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'image_url', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {'ended', ARGV[4], ARGV[5], 0}
