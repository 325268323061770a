-- settle: end a hold: replace it by its actual charge (capture), give it back (release), or charge what is known of it
-- once nobody renews it (expire). Idempotent. What comes after an expiry is posted as the difference to it, once.
-- uses: numbers scope hold threshold
-- KEYS  1 hold  2 leases  3 ledger stream  4 alerts  5 thresholds that were told  6 quarantine
--       7.. the scopes it was held at, outermost first; behind them, where the call has an Idempotency-Key, its claim, which
--       a release frees, and where its answer is kept
-- ARGV  1 hold id  2 "capture", "release" or "expire"
--       3 amounts, as five little-endian doubles: charge (nano-USD; 0 for a release), tokens it used, how long the tombstone
--         stays (ms), the deadline that has passed (expire: a hold that was renewed since keeps running), how long the
--         answer is kept (ms)
--       4 JSON of the entry
--       5 where the call has an Idempotency-Key, and only there: the answer to keep for a repeat, "" where there is none
-- Returns {"settled", entry id, now, thresholds it is the first to find reached}: {scope, window, percent, limit, spent}
--      or {"resolved", "captured" | "released" | "expired", posted}: it had ended before
--      or {"renewed"}: it is not to expire
--      or {"unknown"}: no such hold. A capture then posts nothing and is kept in quarantine; a release leaves a tombstone,
--      on which an admission that is still on its way is answered "resolved"
-- The first write is a ZREM: above maxmemory Redis refuses the rest of a script only if its first write may grow memory,
-- so that what runs can still be settled while admissions are refused.

local charge, tokens, tombstone_ms, passed_deadline, answer_kept_ms = unpack(amounts(ARGV[3], '<ddddd'))
local state = ARGV[2] == 'capture' and CAPTURED or ARGV[2] == 'release' and RELEASED or ARGV[2] == 'expire' and EXPIRED
if not state or (state == RELEASED and charge > 0) then error('cannot settle as ' .. ARGV[2]) end
local answer = ARGV[5]
local count = answer and #KEYS - 8 or #KEYS - 6
local now = now_ms()

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 7, 6 + count))
if not packed[1] then
  redis.call('ZREM', KEYS[2], ARGV[1])
  if state == RELEASED then
    -- Released before it was admitted: an admission without an answer may still be on its way. It finds this tombstone.
    local tombstone = write_hold({RELEASED, 0, now, now, 0, 0, 0, 0, now, 0, 0, 0, 0, 0, 0, '{}'})
    redis.call('SET', KEYS[1], tombstone, 'PX', tombstone_ms)
  elseif state == CAPTURED then
    redis.call('HSETNX', KEYS[6], ARGV[1], table.concat({decimal(now), decimal(charge), ARGV[4]}, '\n'))
  end
  return {'unknown'}
end
local hold = read_hold(packed[1])
local late = hold[STATE] == EXPIRED and state ~= EXPIRED
if hold[STATE] ~= OPEN and not late then
  return {'resolved', ({'captured', 'released', 'expired'})[hold[STATE]], hold[POSTED]}
end
if state == EXPIRED and (hold[DEADLINE] ~= passed_deadline or hold[DEADLINE] > now) then return {'renewed'} end

local change = charge - hold[POSTED]
if late then tokens = math.max(0, tokens - hold[SO_FAR_PROMPT] - hold[SO_FAR_COMPLETION]) end
local writes, crossed = {}, {}
for i = 1, count do
  local scope, soft_bytes = posted(packed[i + 1], hold, i, change, not late, tokens, now)
  if change > 0 and soft_bytes > 0 then scope = add_crossed(crossed, i, scope, hold) end
  writes[2 * i - 1], writes[2 * i] = KEYS[i + 6], scope
end

local entry = {'type', late and 'late_capture' or ARGV[2], 'hold', ARGV[1], 'cost', change, 'at', now,
  'admitted', hold[ADMITTED_AT], 'from_credit', hold[FROM_CREDIT], 'windows', windows_of(hold), 'entry', ARGV[4]}
if late then
  entry[#entry + 1] = 'replaces'
  entry[#entry + 1] = table.concat({decimal(hold[POSTED]), decimal(hold[SO_FAR_PROMPT]),
    decimal(hold[SO_FAR_COMPLETION]), decimal(hold[SO_FAR_UNITS])}, ' ')
end
hold[STATE], hold[POSTED], hold[RESOLVED_AT] = state, charge, now
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('MSET', unpack(writes))
redis.call('SET', KEYS[1], write_hold(hold), 'PX', tombstone_ms)
if answer and state == CAPTURED and answer ~= '' then
  -- What stands there already is newer: pictures may be answered while their settlement still waits for Redis.
  redis.call('SET', KEYS[#KEYS], answer, 'PX', answer_kept_ms, 'NX')
end
if answer and state == RELEASED then
  -- A call that cost nothing may be asked for again under its Idempotency-Key.
  local claim = KEYS[#KEYS - 1]
  local holder = redis.call('GET', claim)
  if holder and string.match(holder, '^[^\n]+') == ARGV[1] then redis.call('DEL', claim) end
end
local id = redis.call('XADD', KEYS[3], '*', unpack(entry))
local told = crossed[1] and tell(crossed, KEYS[4], KEYS[5], function(i) return KEYS[i + 6] end, now) or {}
return {'settled', id, now, told}
