-- admit: place one hold at every scope above a call, all or nothing. A refusal writes nothing.
-- uses: scope hold
-- KEYS  1 hold  2 leases  3.. scopes, outermost first; the last is the key
-- ARGV  1 hold id  2 required (nano-USD)  3 model  4 lease (ms)  5 JSON about the hold
--       6..11 start and end (ms) of day, week, month as the gateway sees them
-- Returns {"admitted", admitted_at, deadline}
--      or {"resolved", "captured" | "released" | "expired"}: this id's hold has ended already; nothing is placed
--      or {"stale_window", now}: the windows do not contain Redis's clock
--      or {"unknown_scope" | "revoked" | "expired" | "blocked" | "model_not_allowed", scope number}
--      or {"budget_exceeded" | "budget_held", scope number, window number, limit, spent, held, start}
-- Order of refusals: 401, 403, 402, 429; within each the outermost scope.
-- Sending the same id again, while its hold is open, answers as the first time and places nothing more.

local required, model, lease = amount(ARGV[2]), ARGV[3], amount(ARGV[4])
local now = now_ms()
local starts = {0, amount(ARGV[6]), amount(ARGV[8]), amount(ARGV[10])}
local count = #KEYS - 2

local packed = redis.call('MGET', KEYS[1], unpack(KEYS, 3))
if packed[1] then
  local hold = read_hold(packed[1])
  if hold[STATE] ~= OPEN then return {'resolved', STATE_NAMES[hold[STATE]]} end
  return {'admitted', hold[ADMITTED_AT], hold[DEADLINE]}
end

for window = 2, 4 do
  local first, after = amount(ARGV[2 + window * 2]), amount(ARGV[3 + window * 2])
  if now < first or now >= after then return {'stale_window', now} end
end

local scopes = {}
for i = 1, count do
  if not packed[i + 1] then return {'unknown_scope', i} end
  scopes[i] = read_scope(packed[i + 1])
end

local key = scopes[count]
if math.floor(key[FLAGS] / REVOKED) % 2 == 1 then return {'revoked', count} end
if key[EXPIRES_AT] > 0 and now >= key[EXPIRES_AT] then return {'expired', count} end
for i = 1, count do
  if scopes[i][FLAGS] % 2 == BLOCKED then return {'blocked', i} end
end
for i = 1, count do
  local models = scopes[i].models
  if models ~= '' and not string.find(models, '\n' .. model .. '\n', 1, true) then return {'model_not_allowed', i} end
end

-- A window never moves backwards: where a scope already counts a later one (Redis's clock was set back), all stay there.
for window = 2, 4 do
  for i = 1, count do starts[window] = math.max(starts[window], scopes[i][START[window]]) end
end
for i = 1, count do
  local scope = scopes[i]
  for window = 2, 4 do
    if scope[START[window]] < starts[window] then
      scope[START[window]], scope[SPENT[window]], scope[HELD[window]] = starts[window], 0, 0
    end
  end
end

local held_back
for i = 1, count do
  local scope = scopes[i]
  for window = 1, 4 do
    local limit, spent, held = scope[LIMITS + window], scope[SPENT[window]], scope[HELD[window]]
    local bound = limit >= 0 and limit or NANO_USD_MAX
    local refusal = {i, window, limit, spent, held, starts[window]}
    if spent + required > bound then return {'budget_exceeded', unpack(refusal)} end
    if spent + held + required > bound and not held_back then held_back = refusal end
  end
end
if held_back then return {'budget_held', unpack(held_back)} end

local writes = {}
for i = 1, count do
  local scope = scopes[i]
  for window = 1, 4 do scope[HELD[window]] = scope[HELD[window]] + required end
  writes[#writes + 1] = KEYS[i + 2]
  writes[#writes + 1] = write_scope(scope)
end
local deadline = now + lease
local hold = {OPEN, required, now, deadline, starts[2], starts[3], starts[4], 0, 0, about = ARGV[5]}
redis.call('MSET', KEYS[1], write_hold(hold), unpack(writes))
redis.call('ZADD', KEYS[2], decimal(deadline), ARGV[1])
return {'admitted', now, deadline}
