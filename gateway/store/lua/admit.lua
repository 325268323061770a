-- admit: place one hold at every scope above a call, all or nothing. A refusal writes nothing but what a clock that was
-- set back asks for.
-- uses: numbers scope hold
-- KEYS  1 hold  2 leases  3 which price list is in force until when (put_prices.lua)  4.. scopes, outermost first; the last
--       of them is the key; behind them, where the call has an Idempotency-Key, its claim
-- ARGV  1 hold id
--       2 amounts, as fourteen little-endian doubles: required (nano-USD), lease (ms), most tokens it can use, images it
--         asks for, start and end (ms) of day, week and month as the gateway sees them, and what it is charged should its
--         gateway never be heard of again: nano-USD, prompt tokens, completion tokens, units
--       3 model  4 JSON about the hold  5 version of the price list that the call was priced by
--       6 where the call has an Idempotency-Key, and only there: digest of the request
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

-- The version of the price list that is in force: a line each, until when (ms) and version, the earliest first.
local function version_at(lists, now)
  local ends, version, following = nil, nil, 1
  repeat
    ends, version, following = string.match(lists, '^(%d+) (%S+)\n()', following)
  until not ends or now < tonumber(ends)
  return version or ''
end

local function allows(scope, model)
  local models = models_of(scope)
  return models == '' or string.find(models, '\n' .. model .. '\n', 1, true)
end

-- What a scope has left of the money it is limited to, if that is less than `least`; -1 is without limit.
local function money_left(scope, least)
  for window = TOTAL, MONTH do
    local limit = scope[LIMIT + window]
    if limit >= 0 then
      local rest = limit - scope[SPENT + 3 * window] - scope[HELD + 3 * window]
      if least < 0 or rest < least then least = rest > 0 and rest or 0 end
    end
  end
  if scope[FLAGS] >= PAYS_AHEAD then
    local rest = scope[PAID_IN] - scope[CREDIT_SPENT] - scope[CREDIT_HELD]
    if least < 0 or rest < least then least = rest > 0 and rest or 0 end
  end
  return least
end

local required, lease, tokens, images, day, day_ends, week, week_ends, month, month_ends,
  so_far, so_far_prompt, so_far_completion, so_far_units = unpack(amounts(ARGV[2], '<dddddddddddddd'))
local model, digest = ARGV[3], ARGV[6]
local count = digest and #KEYS - 4 or #KEYS - 3
local now = now_ms()
local scopes = {}

-- Put into `left`, from `at` on, what a scope has left of a rate (limit, remaining, what is used), if it is the least so
-- far. `used` is how much of its bucket is used or set aside, in ms of refill.
local function tighten(left, at, limit, used)
  local rest = (MINUTE_MS - used) * limit / MINUTE_MS + 1e-6
  rest = rest > 0 and rest - rest % 1 or 0
  if left[at] < 0 or rest < left[at + 1] then left[at], left[at + 1], left[at + 2] = limit, rest, used end
end

local function answer(outcome, numbers, more)
  local left = {-1, -1, -1, -1, -1, -1, -1}
  for i = 1, count do
    local scope = scopes[i]
    local limit, used = scope[RATE_LIMIT + REQUESTS], scope[ARRIVAL + REQUESTS] - now
    if used < 0 then used = 0 end
    if limit > 0 then tighten(left, 1, limit, used) end
    limit, used = scope[RATE_LIMIT + TOKENS], scope[ARRIVAL + TOKENS] - now
    if used < 0 then used = 0 end
    if limit > 0 then tighten(left, 4, limit, used + scope[TOKENS_HELD] * MINUTE_MS / limit) end
    if i > 1 then left[7] = money_left(scope, left[7]) end
  end
  left[3], left[6] = math.ceil(math.min(left[3], MINUTE_MS)), math.ceil(math.min(left[6], MINUTE_MS))
  return {outcome, numbers, left, more}
end

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 3))
local hold = packed[1] and read_hold(packed[1])
local in_windows = day <= now and now < day_ends and week <= now and now < week_ends and month <= now and now < month_ends
if not hold and not in_windows then return {'stale_window', {now}, {}} end

local latest, set_back, turning = now + MINUTE_MS, {}, false
for i = 1, count do
  if not packed[i + 2] then return {'unknown_scope', {i}, {}} end
  local scope = read_scope(packed[i + 2])
  scopes[i] = scope
  if scope[ARRIVAL + REQUESTS] > latest or scope[ARRIVAL + TOKENS] > latest or scope[ARRIVAL + IMAGES] > latest then
    -- It was emptied before the clock was set back: from now on it is an empty one of this clock.
    for rate = REQUESTS, IMAGES do scope[ARRIVAL + rate] = math.min(latest, scope[ARRIVAL + rate]) end
    set_back[#set_back + 1] = i
  end
  if scope[START + 3 * DAY] ~= day or scope[START + 3 * WEEK] ~= week or scope[START + 3 * MONTH] ~= month then
    turning = true
  end
end

if hold then
  if hold[STATE] ~= OPEN then return {'resolved', {hold[STATE]}, {}} end
  return answer('admitted', {hold[ADMITTED_AT], hold[DEADLINE]})
end
local version = version_at(packed[2] or '', now)
if version ~= ARGV[5] then return {'stale_price', {now}, {}, version} end

local starts = {0, day, week, month}
if turning then
  -- A window never moves backwards: where a scope already counts a later one (Redis's clock was set back), all stay there.
  for window = DAY, MONTH do
    local start = START + 3 * window
    for i = 1, count do starts[window] = math.max(starts[window], scopes[i][start]) end
    for i = 1, count do turn(scopes[i], window, starts[window]) end
  end
end

local key = scopes[count]
if math.floor(key[FLAGS] / REVOKED) % 2 == 1 then return answer('revoked', {count}) end
if key[EXPIRES_AT] > 0 and now >= key[EXPIRES_AT] then return answer('expired', {count}) end

-- The first refusal of each kind. `later` is the first that waiting would mend: it counts only where no budget is really
-- spent, and is answered with the longest wait of all.
local blocked, not_allowed, exceeding, spent_up, later
local longest = 0
local function wait(ms, outcome, numbers)
  later, longest = later or {outcome, numbers}, math.max(longest, ms)
end
local function exceed(i, window, limit, spent, held)
  local numbers = {i, window, limit, spent, held, starts[window] or 0}
  if spent + required > (limit >= 0 and limit or AMOUNT_MAX) then
    spent_up = spent_up or numbers
  else
    wait(HELD_WAIT_MS, 'budget_held', numbers)
  end
end

local wanted = {1, tokens, images}
for i = 1, count do
  local scope = scopes[i]
  local flags, calls = scope[FLAGS], scope[RATE_LIMIT + CONCURRENT]
  if flags % 2 == BLOCKED then blocked = blocked or i end
  if scope[TEXTS] ~= '' and not allows(scope, model) then not_allowed = not_allowed or i end
  if calls >= 0 and scope[CALLS_OPEN] >= calls then wait(CALLS_WAIT_MS, 'rate_limited', {i, CONCURRENT, calls}) end
  for rate = REQUESTS, IMAGES do
    local limit, want = scope[RATE_LIMIT + rate], wanted[rate]
    if limit >= 0 and want > 0 then
      if want > limit then
        exceeding = exceeding or {i, rate, limit}
      else
        local want_ms, used = want * MINUTE_MS / limit, scope[ARRIVAL + rate] - now
        if used < 0 then used = 0 end
        local held = rate == TOKENS and scope[TOKENS_HELD] * MINUTE_MS / limit or 0
        local over = used + held + want_ms - MINUTE_MS
        -- What was used comes back with time. Is that not enough, running calls must end, which may free all they hold.
        if over > used then over = math.max(HELD_WAIT_MS, used + want_ms - MINUTE_MS) end
        if over > 1e-6 then wait(math.ceil(over), 'rate_limited', {i, rate, limit}) end
      end
    end
  end
  for window = TOTAL, MONTH do
    local limit, spent, held = scope[LIMIT + window], scope[SPENT + 3 * window], scope[HELD + 3 * window]
    local sum = spent + held + required
    if sum > AMOUNT_MAX or limit >= 0 and sum > limit then exceed(i, window, limit, spent, held) end
  end
  if flags >= PAYS_AHEAD and scope[CREDIT_SPENT] + scope[CREDIT_HELD] + required > scope[PAID_IN] then
    exceed(i, PREPAID, scope[PAID_IN], scope[CREDIT_SPENT], scope[CREDIT_HELD])
  end
end
if blocked then return answer('blocked', {blocked}) end
if not_allowed then return answer('model_not_allowed', {not_allowed}) end
if digest and packed[count + 3] then return answer('claimed', {}, packed[count + 3]) end
if exceeding then return answer('exceeds_limit', exceeding) end
if spent_up then return answer('budget_exceeded', spent_up) end
if later then
  -- Without this the same bucket would be found too far ahead again and again, and be empty until that time.
  for _, i in ipairs(set_back) do redis.call('SET', KEYS[i + 3], write_scope(scopes[i])) end
  local outcome, numbers = unpack(later)
  numbers[#numbers + 1] = longest
  return answer(outcome, numbers)
end

local writes, from_credit = {}, 0
for i = 1, count do
  local scope = scopes[i]
  for held = HELD + 3 * TOTAL, HELD + 3 * MONTH, 3 do scope[held] = scope[held] + required end
  if scope[FLAGS] >= PAYS_AHEAD then
    scope[CREDIT_HELD] = scope[CREDIT_HELD] + required
    from_credit = from_credit + 2 ^ (i - 1)
  end
  scope[ARRIVAL + REQUESTS] = taken(scope[ARRIVAL + REQUESTS], scope[RATE_LIMIT + REQUESTS], 1, now)
  scope[ARRIVAL + IMAGES] = taken(scope[ARRIVAL + IMAGES], scope[RATE_LIMIT + IMAGES], images, now)
  scope[TOKENS_HELD] = scope[TOKENS_HELD] + tokens
  scope[CALLS_OPEN] = scope[CALLS_OPEN] + 1
  writes[2 * i - 1], writes[2 * i] = KEYS[i + 3], write_scope(scope)
end
local deadline = now + lease
local placed = write_hold({OPEN, required, now, deadline, starts[DAY], starts[WEEK], starts[MONTH], 0, 0, tokens, from_credit,
  so_far, so_far_prompt, so_far_completion, so_far_units, ARGV[4]})
redis.call('MSET', KEYS[1], placed, unpack(writes))
if digest then redis.call('SET', KEYS[#KEYS], ARGV[1] .. '\n' .. digest, 'PX', CLAIM_KEPT_MS) end
redis.call('ZADD', KEYS[2], deadline, ARGV[1])
return answer('admitted', {now, deadline})
