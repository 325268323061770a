-- refund: give back, once, what a failed image job was charged; its own ledger entry.
-- uses: numbers scope hold
-- KEYS  1 job  2 jobs due  3 hold of the job  4 ledger stream  5.. the scopes it was charged at, outermost first
-- ARGV  1 member of "jobs due"  2 JSON of the entry  3 how long the finished job is kept (ms)
-- Returns {"refunded", entry id, amount} or {"open"} (the hold is not settled yet: ask again later)
--      or {"finished", state} (already refunded, or it ended well) or {"unknown"} or {"nothing_to_refund"}

local function scope_keys() return unpack(KEYS, 5) end

local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'unknown'} end
if state ~= 'pending' then return {'finished', state} end

local packed = redis.call('MGET', KEYS[3], scope_keys())
if not packed[1] then return {'unknown'} end
local hold = read_hold(packed[1])
if hold[STATE] == OPEN then return {'open'} end

local charged = hold[POSTED]
local writes = {}
for i = 1, #KEYS - 4 do
  writes[2 * i - 1], writes[2 * i] = KEYS[i + 4], (posted(packed[i + 1], hold, i, -charged))
end

redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'error')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if charged == 0 then return {'nothing_to_refund'} end
redis.call('MSET', unpack(writes))
local id = redis.call('XADD', KEYS[4], '*', 'type', 'refund', 'hold', string.match(KEYS[3], '[^:]+$'),
  'cost', '-' .. decimal(charged), 'at', decimal(now_ms()), 'admitted', decimal(hold[ADMITTED_AT]), 'from_credit',
  decimal(hold[FROM_CREDIT]), 'windows', windows_of(hold), 'entry', ARGV[2])
return {'refunded', id, charged}
