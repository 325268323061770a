-- admit: place one hold at every scope above a call, all or nothing. A refusal writes nothing but what a clock that was
-- set back asks for. Without JSON about a hold it only weighs: the same answers, and nothing is placed or written.
-- uses: numbers scope hold
-- KEYS  1 hold  2 leases  3 which price list is in force until when (put_prices.lua)  4.. scopes, outermost first; the last
--       of them is the key; behind them where the secret that was shown is bound to it (gone: it is none of the key's any
--       more); behind that, where the call has an Idempotency-Key, its claim
-- ARGV  1 hold id
--       2 amounts, as fourteen little-endian doubles: required (nano-USD), lease (ms), most tokens it can use, images it
--         asks for, start and end (ms) of day, week and month as the gateway sees them, and what it is charged should its
--         gateway never be heard of again: nano-USD, prompt tokens, completion tokens, units
--       3 model  4 JSON about the hold, "" to weigh only  5 version of the price list that the call was priced by
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
local MONEY = 7                                     -- its place in `left`

local required, lease, tokens, images, day_now, day_ends, week_now, week_ends, month_now, month_ends,
  so_far, so_far_prompt, so_far_completion, so_far_units = unpack(amounts(ARGV[2], '<dddddddddddddd'))
local model, digest = ARGV[3], ARGV[6]
local count = digest and #KEYS - 5 or #KEYS - 4
local now = now_ms()
local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 3))
local hold = packed[1] and read_hold(packed[1])

-- The version of the price list that is in force: a line each, until when (ms) and version, the earliest first.
local function version_at(lists)
  local ends, version, following = nil, nil, 1
  repeat
    ends, version, following = string.match(lists, '^(%d+) (%S+)\n()', following)
  until not ends or now < tonumber(ends)
  return version or ''
end

-- Put into `left`, from `at` on, what a scope has left of a rate (limit, remaining, what is used), if it is the least so
-- far. Of its bucket so much is gone until `arrival`, and so many are set aside.
local function tighten(left, at, limit, arrival, held)
  local used = (arrival > now and arrival - now or 0) + held * MINUTE_MS / limit
  local rest = (MINUTE_MS - used) * limit / MINUTE_MS + 1e-6
  rest = rest > 0 and rest - rest % 1 or 0
  if left[at] < 0 or rest < left[at + 1] then left[at], left[at + 1], left[at + 2] = limit, rest, used end
end

-- The same of a budget, which has `rest` left.
local function tighten_money(left, rest)
  if rest < 0 then rest = 0 end
  if left[MONEY] < 0 or rest < left[MONEY] then left[MONEY] = rest end
end

local function reply(outcome, numbers, left, more)
  left[3], left[6] = math.ceil(math.min(left[3], MINUTE_MS)), math.ceil(math.min(left[6], MINUTE_MS))
  return {outcome, numbers, left, more}
end

-- Reply without placing anything: `left` is of the scopes as they are.
local function answer(outcome, numbers, more)
  local left = {-1, -1, -1, -1, -1, -1, -1}
  for i = 1, count do
    local scope = read_scope(packed[i + 2])
    local request_limit, token_limit = scope[RATE_LIMIT + REQUESTS], scope[RATE_LIMIT + TOKENS]
    if request_limit > 0 then tighten(left, 1, request_limit, scope[ARRIVAL + REQUESTS], 0) end
    if token_limit > 0 then tighten(left, 4, token_limit, scope[ARRIVAL + TOKENS], scope[TOKENS_HELD]) end
    if i > 1 then
      for window = TOTAL, MONTH do
        local limit = scope[LIMIT + window]
        if limit >= 0 then tighten_money(left, limit - scope[SPENT + 3 * window] - scope[HELD + 3 * window]) end
      end
      if pays_ahead(scope) then tighten_money(left, scope[PAID_IN] - scope[CREDIT_SPENT] - scope[CREDIT_HELD]) end
    end
  end
  return reply(outcome, numbers, left, more)
end

local in_windows = day_now <= now and now < day_ends and week_now <= now and now < week_ends
  and month_now <= now and now < month_ends
if not hold and not in_windows then return {'stale_window', {now}, {}} end
for i = 1, count do
  if not packed[i + 2] then return {'unknown_scope', {i}, {}} end
end
if hold then
  if hold[STATE] ~= OPEN then return {'resolved', {hold[STATE]}, {}} end
  return answer('admitted', {hold[ADMITTED_AT], hold[DEADLINE]})
end
local version = version_at(packed[2] or '')
if version ~= ARGV[5] then return {'stale_price', {now}, {}, version} end

local starts, latest = {0, day_now, week_now, month_now}, now + MINUTE_MS
local set_back = {}                                 -- numbers of scopes with a bucket of a clock that ran ahead of this one

-- Bring the scopes to this instant: windows that have ended begin anew, and a bucket that is empty for longer than a minute,
-- for it was emptied before the clock was set back, is an empty one of this clock.
local function bring_forward()
  local scopes = {}
  for i = 1, count do
    scopes[i] = read_scope(packed[i + 2])
    for arrival = ARRIVAL + REQUESTS, ARRIVAL + IMAGES do
      if scopes[i][arrival] > latest then scopes[i][arrival], set_back[i] = latest, true end
    end
  end
  for window = DAY, MONTH do
    -- A window never moves backwards: where a scope already counts a later one (the clock was set back), all stay there.
    for i = 1, count do starts[window] = math.max(starts[window], scopes[i][START + 3 * window]) end
    for i = 1, count do turn(scopes[i], window, starts[window]) end
  end
  for i = 1, count do packed[i + 2] = write_scope(scopes[i]) end
end

-- The first refusal of each kind. `later` is the first that waiting would mend: it counts only where no budget is really
-- spent, and is answered with the longest wait of all.
local revoked, expired, blocked, not_allowed, exceeding, spent_up, later, longest
local left, writes, from_credit, brought

local function wait(ms, outcome, numbers)
  later, longest = later or {outcome, numbers}, math.max(longest, ms)
end

local function weigh_rate(i, rate, limit, wanted, arrival, held)
  if wanted > limit then
    exceeding = exceeding or {i, rate, limit}
    return
  end
  local wanted_ms, used = wanted * MINUTE_MS / limit, arrival > now and arrival - now or 0
  local over = used + held * MINUTE_MS / limit + wanted_ms - MINUTE_MS
  -- What was used comes back with time. Is that not enough, running calls must end, which may free all they hold.
  if over > used then over = math.max(HELD_WAIT_MS, used + wanted_ms - MINUTE_MS) end
  if over > 1e-6 then wait(math.ceil(over), 'rate_limited', {i, rate, limit}) end
end

-- The budget of one window, or -1 where only what can be counted bounds it.
local function weigh_budget(i, window, limit, spent, held)
  local bound = limit >= 0 and limit or AMOUNT_MAX
  if spent + held + required > bound then
    local numbers = {i, window, limit, spent, held, starts[window] or 0}
    if spent + required > bound then
      spent_up = spent_up or numbers
    else
      wait(HELD_WAIT_MS, 'budget_held', numbers)
    end
  end
  if i > 1 and limit >= 0 then tighten_money(left, limit - spent - held - required) end
end

repeat
  brought, longest, from_credit = true, 0, 0
  revoked, expired, blocked, not_allowed, exceeding, spent_up, later = nil, nil, nil, nil, nil, nil, nil
  left, writes = {-1, -1, -1, -1, -1, -1, -1}, {}
  for i = 1, count do
    -- Every admission does this with four scopes: numbers in locals take half the time of numbers in a table.
    local version, flags, expires_at, total_limit, day_limit, week_limit, month_limit, total_spent, total_held,
      day, day_spent, day_held, week, week_spent, week_held, month, month_spent, month_held,
      request_limit, token_limit, image_limit, call_limit, requests_at, tokens_at, images_at, tokens_held, calls_open,
      paid_in, credit_spent, credit_held, soft_bytes = struct.unpack(SCOPE_FORMAT, packed[i + 2])
    local texts = string.sub(packed[i + 2], SCOPE_BYTES + 1)
    if day ~= starts[DAY] or week ~= starts[WEEK] or month ~= starts[MONTH]
      or requests_at > latest or tokens_at > latest or images_at > latest then
      bring_forward()
      brought = false
      break
    end

    if i == count then
      revoked = not packed[count + 3] or flags % (2 * REVOKED) >= REVOKED
      expired = expires_at > 0 and now >= expires_at
    end
    if flags % 2 == BLOCKED then blocked = blocked or i end
    if #texts > soft_bytes and not string.find(texts, '\n' .. model .. '\n', soft_bytes + 1, true) then
      not_allowed = not_allowed or i
    end

    if call_limit >= 0 and calls_open >= call_limit then
      wait(CALLS_WAIT_MS, 'rate_limited', {i, CONCURRENT, call_limit})
    end
    if request_limit >= 0 then weigh_rate(i, REQUESTS, request_limit, 1, requests_at, 0) end
    if token_limit >= 0 and tokens > 0 then weigh_rate(i, TOKENS, token_limit, tokens, tokens_at, tokens_held) end
    if image_limit >= 0 and images > 0 then weigh_rate(i, IMAGES, image_limit, images, images_at, 0) end

    local room = AMOUNT_MAX - required
    if total_limit >= 0 or total_spent + total_held > room then
      weigh_budget(i, TOTAL, total_limit, total_spent, total_held)
    end
    if day_limit >= 0 or day_spent + day_held > room then weigh_budget(i, DAY, day_limit, day_spent, day_held) end
    if week_limit >= 0 or week_spent + week_held > room then weigh_budget(i, WEEK, week_limit, week_spent, week_held) end
    if month_limit >= 0 or month_spent + month_held > room then
      weigh_budget(i, MONTH, month_limit, month_spent, month_held)
    end
    if flags >= PAYS_AHEAD then
      weigh_budget(i, PREPAID, paid_in, credit_spent, credit_held)
      credit_held = credit_held + required
      from_credit = from_credit + 2 ^ (i - 1)
    end

    requests_at, images_at = taken(requests_at, request_limit, 1, now), taken(images_at, image_limit, images, now)
    tokens_held = tokens_held + tokens
    if request_limit > 0 then tighten(left, 1, request_limit, requests_at, 0) end
    if token_limit > 0 then tighten(left, 4, token_limit, tokens_at, tokens_held) end
    writes[2 * i - 1], writes[2 * i] = KEYS[i + 3], struct.pack(SCOPE_FORMAT, version, flags, expires_at,
      total_limit, day_limit, week_limit, month_limit, total_spent, total_held + required,
      day, day_spent, day_held + required, week, week_spent, week_held + required, month, month_spent, month_held + required,
      request_limit, token_limit, image_limit, call_limit, requests_at, tokens_at, images_at, tokens_held, calls_open + 1,
      paid_in, credit_spent, credit_held, soft_bytes) .. texts
  end
until brought

if revoked then return answer('revoked', {count}) end
if expired then return answer('expired', {count}) end
if blocked then return answer('blocked', {blocked}) end
if not_allowed then return answer('model_not_allowed', {not_allowed}) end
if digest and packed[count + 4] then return answer('claimed', {}, packed[count + 4]) end
if exceeding then return answer('exceeds_limit', exceeding) end
if spent_up then return answer('budget_exceeded', spent_up) end
if later then
  -- Without this the same bucket would be found too far ahead again and again, and be empty until that time.
  if ARGV[4] ~= '' then
    for i in pairs(set_back) do redis.call('SET', KEYS[i + 3], packed[i + 2]) end
  end
  local outcome, numbers = unpack(later)
  numbers[#numbers + 1] = longest
  return answer(outcome, numbers)
end
if ARGV[4] == '' then return answer('admitted', {now, now}) end

local deadline = now + lease
local placed = struct.pack(HOLD_FORMAT, OPEN, required, now, deadline, starts[DAY], starts[WEEK], starts[MONTH], 0, 0,
  tokens, from_credit, so_far, so_far_prompt, so_far_completion, so_far_units) .. ARGV[4]
redis.call('MSET', KEYS[1], placed, unpack(writes))
if digest then redis.call('SET', KEYS[#KEYS], ARGV[1] .. '\n' .. digest, 'PX', CLAIM_KEPT_MS) end
redis.call('ZADD', KEYS[2], deadline, ARGV[1])
return reply('admitted', {now, deadline}, left)
