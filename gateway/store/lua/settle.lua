-- settle: end a hold: replace it by its actual charge (capture) or give it back (release). Idempotent.
-- uses: scope hold threshold
-- KEYS  1 hold  2 leases  3 ledger stream  4 alerts  5 thresholds that were crossed  6.. the scopes it was held at, outermost first
-- ARGV  1 hold id  2 "capture" or "release"  3 charge (nano-USD; 0 for a release)  4 JSON of the entry
--       5 how long the tombstone stays (ms)  6 tokens it used
-- Returns {"settled", entry id, now, thresholds this charge crossed, each {scope, window, percent, limit, spent}} or {"resolved", "captured" | "released" | "expired", posted}: it had ended before
--      or {"unknown"}: no such hold. A capture then writes nothing; a release leaves a tombstone, on which an admission
--      that is still on its way is answered "resolved"
-- The first write is a ZREM: above maxmemory Redis refuses the rest of a script only if its first write may grow memory,
-- so that what runs can still be settled while admissions are refused.

local charge, tombstone_ms, tokens = amount(ARGV[3]), amount(ARGV[5]), amount(ARGV[6])
local state = ({capture = CAPTURED, release = RELEASED})[ARGV[2]]
if not state or (state == RELEASED and charge > 0) then error('cannot settle as ' .. ARGV[2]) end

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 6))
if not packed[1] then
  -- Released before it was admitted: an admission without an answer may still be on its way. It finds this tombstone.
  if state == RELEASED then
    local now = now_ms()
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('SET', KEYS[1], write_hold({RELEASED, 0, now, now, 0, 0, 0, 0, now, 0, 0, about = '{}'}), 'PX', decimal(tombstone_ms))
  end
  return {'unknown'}
end
local hold = read_hold(packed[1])
if hold[STATE] ~= OPEN then return {'resolved', STATE_NAMES[hold[STATE]], hold[POSTED]} end

local now = now_ms()
local writes, crossed = {}, {}
for i = 1, #KEYS - 5 do
  local scope = read_scope(packed[i + 1])
  scope[CALLS_OPEN] = scope[CALLS_OPEN] - 1
  scope[TOKENS_HELD] = scope[TOKENS_HELD] - hold[HOLD_TOKENS]
  take(scope, TOKENS, tokens, now)
  for window = 1, PREPAID do
    if counts_in(hold, i, scope, window) then
      scope[HELD[window]] = scope[HELD[window]] - hold[AMOUNT]
      scope[SPENT[window]] = scope[SPENT[window]] + charge
      if scope[SPENT[window]] > NANO_USD_MAX or scope[HELD[window]] < 0 then error('the books do not add up') end
      add_crossed(crossed, i, scope, window, charge)
    end
  end
  writes[#writes + 1] = KEYS[i + 5]
  writes[#writes + 1] = write_scope(scope)
end

hold[STATE], hold[POSTED], hold[RESOLVED_AT] = state, charge, now
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('MSET', unpack(writes))
redis.call('SET', KEYS[1], write_hold(hold), 'PX', decimal(tombstone_ms))
local id = redis.call('XADD', KEYS[3], '*', 'type', ARGV[2], 'hold', ARGV[1], 'cost', decimal(charge),
  'at', decimal(now), 'admitted', decimal(hold[ADMITTED_AT]), 'from_credit', decimal(hold[FROM_CREDIT]), 'entry', ARGV[4])
return {'settled', id, now, tell(crossed, KEYS[4], KEYS[5], function(i) return KEYS[i + 5] end, now)}
