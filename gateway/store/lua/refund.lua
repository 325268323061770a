-- refund: give back, once, what a failed image job was charged; its own ledger entry.
-- uses: numbers scope hold job
-- KEYS  1 job  2 jobs due  3 hold of the job  4 ledger stream  5 jobs of that hold, and what was given back of it
--       6.. the scopes it was charged at, outermost first
-- ARGV  1 member of "jobs due"  2 JSON of the entry  3 how long the finished job is kept (ms)
--       4 the job's share of what its hold was charged, in nano-USD: never more comes back, nor more than is left of it
--       5 hold that paid for it  6 its place among the images of its call
-- Returns {"refunded", entry id, amount} or {"open"} (the hold is not settled yet: ask again later)
--      or {"finished", state, amount that came back} (already refunded, or it ended well)
--      or {"unknown"} (no such hold, any more) or {"nothing_to_refund"}
--      or {"unbound"} or {"foreign"}: the job is not this call's, and nothing comes back for it

local share = amount(ARGV[4])
local function scope_keys() return unpack(KEYS, 6) end

local job = redis.call('HMGET', KEYS[1], 'about', 'state', 'refunded')
local refused = not_own(job[1], ARGV[5], ARGV[6])
if refused then return {refused} end
if job[2] ~= 'pending' then return {'finished', job[2], tonumber(job[3] or 0)} end

local packed = redis.call('MGET', KEYS[3], scope_keys())
if not packed[1] then return {'unknown'} end
local hold = read_hold(packed[1])
if hold[STATE] == OPEN then return {'open'} end

local given_back = amount(redis.call('HGET', KEYS[5], 'refunded') or '0')
local refund = math.max(0, math.min(share, hold[POSTED] - given_back))
local writes = {}
for i = 1, #KEYS - 5 do
  writes[2 * i - 1], writes[2 * i] = KEYS[i + 5], (posted(packed[i + 1], hold, i, -refund))
end

redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'error', 'refunded', decimal(refund))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if refund == 0 then return {'nothing_to_refund'} end
redis.call('HSET', KEYS[5], 'refunded', decimal(given_back + refund))
redis.call('PEXPIRE', KEYS[5], ARGV[3])
redis.call('MSET', unpack(writes))
local id = redis.call('XADD', KEYS[4], '*', 'type', 'refund', 'hold', string.match(KEYS[3], '[^:]+$'),
  'cost', '-' .. decimal(refund), 'at', decimal(now_ms()), 'admitted', decimal(hold[ADMITTED_AT]), 'from_credit',
  decimal(hold[FROM_CREDIT]), 'windows', windows_of(hold), 'entry', ARGV[2])
return {'refunded', id, refund}
