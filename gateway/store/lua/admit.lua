-- admit: place one hold at every scope above a call, all or nothing. A refusal writes nothing but what a clock that was
-- set back asks for.
-- uses: scope hold
-- KEYS  1 hold  2 leases  3 which price list is in force until when (put_prices.lua)  4.. scopes, outermost first; the last
--       of them is the key; behind them, where the call has an Idempotency-Key, its claim
-- ARGV  1 hold id  2 required (nano-USD)  3 model  4 lease (ms)  5 JSON about the hold
--       6..11 start and end (ms) of day, week, month as the gateway sees them
--       12 most tokens it can use  13 images it asks for
--       14..17 what it is charged should its gateway never be heard of again: nano-USD, prompt tokens, completion tokens, units
--       18 digest of the request, where it has an Idempotency-Key; else ""
--       19 version of the price list that the call was priced by
-- Returns {outcome, numbers, left}; left is what the tightest scope has: limit, remaining and reset (ms) of requests, the
-- same of tokens, and money (nano-USD) below the organisation; -1 where nothing limits it. Outcomes and their numbers:
--   "admitted" admitted_at deadline
--   "resolved" how: this id's hold has ended already (1 captured, 2 released, 3 expired); nothing is placed
--   "claimed": another call has this Idempotency-Key; a fourth element is its claim: hold id, newline, digest of its request
--   "stale_window" now: the windows do not contain Redis's clock
--   "stale_price" now: another price list is in force; a fourth element is its version, "" where there is none
--   "unknown_scope" | "revoked" | "expired" | "blocked" | "model_not_allowed", scope
--   "exceeds_limit" scope rate limit: more than a whole minute's worth; it could never be admitted
--   "budget_exceeded" scope window limit spent held start; of window 5, prepaid, the limit is what was paid in
--   "budget_held" the same, then retry_after (ms)
--   "rate_limited" scope rate limit retry_after (ms)
-- retry_after is the longest of all scopes' waits. Where only an end of running calls helps, nobody knows it: HELD_WAIT_MS.
-- Order of refusals: 401, 403, 400, 402, 429; within each the outermost scope.
-- Sending the same id again, while its hold is open, answers as the first time and places nothing more.

local CLAIM_KEPT_MS = 24 * 3600 * 1000
local HELD_WAIT_MS, CALLS_WAIT_MS = 2000, 1000

local required, model, lease = amount(ARGV[2]), ARGV[3], amount(ARGV[4])
local wanted = {1, amount(ARGV[12]), amount(ARGV[13])}
local now = now_ms()
local starts = {0, amount(ARGV[6]), amount(ARGV[8]), amount(ARGV[10])}
local claiming = ARGV[18] ~= ''
local count = #KEYS - 3 - (claiming and 1 or 0)
local scopes = {}
local set_back = {}                                 -- numbers of scopes with a bucket of a clock that ran ahead of this one

-- The version of the price list that is in force: `lists` is a line each, until when (ms) and version, the earliest first.
local function version_at(lists)
  for ends, version in string.gmatch(lists or '', '(%d+) (%S+)\n') do
    if now < tonumber(ends) then return version end
  end
  return ''
end

-- What the tightest scope has left of one rate.
local function left_of(rate)
  local limit, remaining, reset = -1, -1, -1
  for i = 1, count do
    local most = scopes[i][RATE_LIMIT + rate]
    if most > 0 then
      local used = used_ms(scopes[i], rate, now) + held_ms(scopes[i], rate)
      local rest = math.max(0, math.floor((MINUTE_MS - used) * most / MINUTE_MS + 1e-6))
      if remaining < 0 or rest < remaining then limit, remaining, reset = most, rest, math.ceil(math.min(used, MINUTE_MS)) end
    end
  end
  return limit, remaining, reset
end

local function money_left()
  local least = -1
  for i = 2, count do
    local scope = scopes[i]
    for window = 1, PREPAID do
      local limit = limit_of(scope, window)
      if limit >= 0 then
        local rest = math.max(0, limit - scope[SPENT[window]] - scope[HELD[window]])
        if least < 0 or rest < least then least = rest end
      end
    end
  end
  return least
end

local function answer(outcome, ...)
  local limit, remaining, reset = left_of(REQUESTS)
  local token_limit, token_remaining, token_reset = left_of(TOKENS)
  return {outcome, {...}, {limit, remaining, reset, token_limit, token_remaining, token_reset, money_left()}}
end

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 3))
for window = 2, 4 do
  local first, after = amount(ARGV[2 + window * 2]), amount(ARGV[3 + window * 2])
  if not packed[1] and (now < first or now >= after) then return {'stale_window', {now}, {}} end
end

for i = 1, count do
  if not packed[i + 2] then return {'unknown_scope', {i}, {}} end
  scopes[i] = read_scope(packed[i + 2])
  if heed_clock(scopes[i], now) then set_back[#set_back + 1] = i end
end

if packed[1] then
  local hold = read_hold(packed[1])
  if hold[STATE] ~= OPEN then return {'resolved', {hold[STATE]}, {}} end
  return answer('admitted', hold[ADMITTED_AT], hold[DEADLINE])
end
local version = version_at(packed[2])
if version ~= ARGV[19] then return {'stale_price', {now}, {}, version} end

-- A window never moves backwards: where a scope already counts a later one (Redis's clock was set back), all stay there.
for window = 2, 4 do
  for i = 1, count do starts[window] = math.max(starts[window], scopes[i][START[window]]) end
end
for i = 1, count do
  local scope = scopes[i]
  for window = 2, 4 do
    if scope[START[window]] < starts[window] then
      scope[START[window]], scope[SPENT[window]], scope[HELD[window]] = starts[window], 0, 0
      forget_told(scope, window)
    end
  end
end

local key = scopes[count]
if math.floor(key[FLAGS] / REVOKED) % 2 == 1 then return answer('revoked', count) end
if key[EXPIRES_AT] > 0 and now >= key[EXPIRES_AT] then return answer('expired', count) end
for i = 1, count do
  if scopes[i][FLAGS] % 2 == BLOCKED then return answer('blocked', i) end
end
for i = 1, count do
  local models = scopes[i].models
  if models ~= '' and not string.find(models, '\n' .. model .. '\n', 1, true) then return answer('model_not_allowed', i) end
end
local claim = claiming and packed[count + 3]
if claim then
  local reply = answer('claimed')
  reply[4] = claim
  return reply
end
for i = 1, count do
  for rate = REQUESTS, IMAGES do
    local limit = scopes[i][RATE_LIMIT + rate]
    if limit >= 0 and wanted[rate] > limit then return answer('exceeds_limit', i, rate, limit) end
  end
end

-- The first refusal that waiting would mend, and the longest wait: they count only where no budget is really spent.
local later, longest = nil, 0
local function wait(ms, outcome, ...)
  later, longest = later or {outcome, ...}, math.max(longest, ms)
end

-- How long until so much of a bucket is free, in ms; not above 0 where it is.
local function wait_ms(scope, rate, wanted_ms)
  local used, held = used_ms(scope, rate, now), held_ms(scope, rate)
  local over = used + held + wanted_ms - MINUTE_MS
  -- What was used comes back with time. Is that not enough, running calls must end, which may free all they hold.
  if over <= used then return over end
  return math.max(HELD_WAIT_MS, used + wanted_ms - MINUTE_MS)
end

for i = 1, count do
  local scope = scopes[i]
  local calls = scope[RATE_LIMIT + CONCURRENT]
  if calls >= 0 and scope[CALLS_OPEN] >= calls then wait(CALLS_WAIT_MS, 'rate_limited', i, CONCURRENT, calls) end
  for rate = REQUESTS, IMAGES do
    local limit = scope[RATE_LIMIT + rate]
    if limit > 0 and wanted[rate] > 0 then
      local ms = wait_ms(scope, rate, wanted[rate] * MINUTE_MS / limit)
      if ms > 1e-6 then wait(math.ceil(ms), 'rate_limited', i, rate, limit) end
    end
  end
  for window = 1, PREPAID do
    local limit, spent, held = limit_of(scope, window), scope[SPENT[window]], scope[HELD[window]]
    local bound = limit >= 0 and limit or NANO_USD_MAX
    if spent + required > bound then return answer('budget_exceeded', i, window, limit, spent, held, starts[window] or 0) end
    if spent + held + required > bound then
      wait(HELD_WAIT_MS, 'budget_held', i, window, limit, spent, held, starts[window] or 0)
    end
  end
end
if later then
  -- Without this the same bucket would be found too far ahead again and again, and be empty until that time.
  for _, i in ipairs(set_back) do redis.call('SET', KEYS[i + 3], write_scope(scopes[i])) end
  later[#later + 1] = longest
  return answer(unpack(later))
end

local writes, from_credit = {}, 0
for i = 1, count do
  local scope = scopes[i]
  for window = 1, 4 do scope[HELD[window]] = scope[HELD[window]] + required end
  if pays_ahead(scope) then
    scope[HELD[PREPAID]] = scope[HELD[PREPAID]] + required
    from_credit = from_credit + 2 ^ (i - 1)
  end
  take(scope, REQUESTS, 1, now)
  take(scope, IMAGES, wanted[IMAGES], now)
  scope[TOKENS_HELD] = scope[TOKENS_HELD] + wanted[TOKENS]
  scope[CALLS_OPEN] = scope[CALLS_OPEN] + 1
  writes[#writes + 1] = KEYS[i + 3]
  writes[#writes + 1] = write_scope(scope)
end
local deadline = now + lease
local hold = {OPEN, required, now, deadline, starts[2], starts[3], starts[4], 0, 0, wanted[TOKENS], from_credit,
  amount(ARGV[14]), amount(ARGV[15]), amount(ARGV[16]), amount(ARGV[17]), about = ARGV[5]}
redis.call('MSET', KEYS[1], write_hold(hold), unpack(writes))
if claiming then redis.call('SET', KEYS[#KEYS], ARGV[1] .. '\n' .. ARGV[18], 'PX', CLAIM_KEPT_MS) end
redis.call('ZADD', KEYS[2], decimal(deadline), ARGV[1])
return answer('admitted', now, deadline)
