-- settle: end a hold: replace it by its actual charge (capture), give it back (release), or charge what is known of it
-- once nobody renews it (expire). Idempotent. What comes after an expiry is posted as the difference to it, once.
-- uses: scope hold threshold
-- KEYS  1 hold  2 leases  3 ledger stream  4 alerts  5 thresholds that were told  6 quarantine
--       7.. the scopes it was held at, outermost first; behind them, where the call has an Idempotency-Key, its claim and
--       where its answer is kept
-- ARGV  1 hold id  2 "capture", "release" or "expire"  3 charge (nano-USD; 0 for a release)  4 JSON of the entry
--       5 how long the tombstone stays (ms)  6 tokens it used  7 "1" where the last two keys are a claim, which a release frees, and
--       an answer's place
--       8 the deadline that has passed (expire): a hold that was renewed since keeps running
--       9 the answer to keep for a repeat, "" where there is none  10 how long it is kept (ms)
-- Returns {"settled", entry id, now, thresholds it is the first to find reached}: {scope, window, percent, limit, spent}
--      or {"resolved", "captured" | "released" | "expired", posted}: it had ended before
--      or {"renewed"}: it is not to expire
--      or {"unknown"}: no such hold. A capture then posts nothing and is kept in quarantine; a release leaves a tombstone,
--      on which an admission that is still on its way is answered "resolved"
-- The first write is a ZREM: above maxmemory Redis refuses the rest of a script only if its first write may grow memory,
-- so that what runs can still be settled while admissions are refused.

local charge, tombstone_ms, tokens = amount(ARGV[3]), amount(ARGV[5]), amount(ARGV[6])
local state = ({capture = CAPTURED, release = RELEASED, expire = EXPIRED})[ARGV[2]]
if not state or (state == RELEASED and charge > 0) then error('cannot settle as ' .. ARGV[2]) end
local claim = ARGV[7] == '1' and KEYS[#KEYS - 1]
local count = #KEYS - 6 - (claim and 2 or 0)
local now = now_ms()

-- A call that cost nothing may be asked for again under its Idempotency-Key.
local function free_claim()
  if not claim or state ~= RELEASED then return end
  local holder = redis.call('GET', claim)
  if holder and string.match(holder, '^[^\n]+') == ARGV[1] then redis.call('DEL', claim) end
end

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 7, 6 + count))
if not packed[1] then
  redis.call('ZREM', KEYS[2], ARGV[1])
  if state == RELEASED then
    -- Released before it was admitted: an admission without an answer may still be on its way. It finds this tombstone.
    redis.call('SET', KEYS[1], write_hold({RELEASED, 0, now, now, 0, 0, 0, 0, now, 0, 0, 0, 0, 0, 0, about = '{}'}), 'PX', decimal(tombstone_ms))
  elseif state == CAPTURED then
    redis.call('HSETNX', KEYS[6], ARGV[1], table.concat({decimal(now), decimal(charge), ARGV[4]}, '\n'))
  end
  return {'unknown'}
end
local hold = read_hold(packed[1])
local late = hold[STATE] == EXPIRED and state ~= EXPIRED
if hold[STATE] ~= OPEN and not late then return {'resolved', STATE_NAMES[hold[STATE]], hold[POSTED]} end
if state == EXPIRED and (hold[DEADLINE] ~= amount(ARGV[8]) or hold[DEADLINE] > now) then return {'renewed'} end

local change = charge - hold[POSTED]
local writes, crossed = {}, {}
for i = 1, count do
  local scope, charged = read_scope(packed[i + 1]), {}
  if late then
    take(scope, TOKENS, math.max(0, tokens - hold[SO_FAR_PROMPT] - hold[SO_FAR_COMPLETION]), now)
  else
    scope[CALLS_OPEN] = scope[CALLS_OPEN] - 1
    scope[TOKENS_HELD] = scope[TOKENS_HELD] - hold[HOLD_TOKENS]
    take(scope, TOKENS, tokens, now)
  end
  for window = 1, PREPAID do
    if counts_in(hold, i, scope, window) then
      if not late then scope[HELD[window]] = scope[HELD[window]] - hold[AMOUNT] end
      scope[SPENT[window]] = scope[SPENT[window]] + change
      if scope[SPENT[window]] > NANO_USD_MAX or scope[HELD[window]] < 0 then error('the books do not add up') end
      charged[window] = change > 0
    end
  end
  add_crossed(crossed, i, scope, charged)
  writes[#writes + 1] = KEYS[i + 6]
  writes[#writes + 1] = write_scope(scope)
end

local entry = {'type', late and 'late_capture' or ARGV[2], 'hold', ARGV[1], 'cost', decimal(change),
  'at', decimal(now), 'admitted', decimal(hold[ADMITTED_AT]), 'from_credit', decimal(hold[FROM_CREDIT]),
  'windows', windows_of(hold), 'entry', ARGV[4]}
if late then
  entry[#entry + 1] = 'replaces'
  entry[#entry + 1] = table.concat({decimal(hold[POSTED]), decimal(hold[SO_FAR_PROMPT]),
    decimal(hold[SO_FAR_COMPLETION]), decimal(hold[SO_FAR_UNITS])}, ' ')
end
hold[STATE], hold[POSTED], hold[RESOLVED_AT] = state, charge, now
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('MSET', unpack(writes))
redis.call('SET', KEYS[1], write_hold(hold), 'PX', decimal(tombstone_ms))
free_claim()
if claim and state == CAPTURED and ARGV[9] ~= '' then redis.call('SET', KEYS[#KEYS], ARGV[9], 'PX', ARGV[10]) end
local id = redis.call('XADD', KEYS[3], '*', unpack(entry))
return {'settled', id, now, tell(crossed, KEYS[4], KEYS[5], function(i) return KEYS[i + 6] end, now)}
