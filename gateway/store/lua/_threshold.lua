-- threshold: soft percents of budgets that spending has reached; each is told once for a scope, window and limit, by the
-- first charge that finds it reached: the one that crosses it, or the next after a limit was lowered or credit moved away.
-- Stands behind _numbers, _scope and _hold.

local ALERTS_MAX = 10000
local CROSSED_KEPT_MS = 63 * 24 * 3600 * 1000       -- longer than any window that ends is posted to

-- So many percent of a limit, rounded up, without leaving whole numbers below 2^53.
local function share_of(limit, percent)
  local rest = limit % 100
  return (limit - rest) / 100 * percent + math.ceil(rest * percent / 100)
end

-- What bounds a window (-1 where nothing does), what is spent of it, and where it began (0 where it has no start).
local function standing_of(scope, window)
  if window == PREPAID then return pays_ahead(scope) and scope[PAID_IN] or -1, scope[CREDIT_SPENT], 0 end
  local place = 3 * window
  return scope[LIMIT + window], scope[SPENT + place], window == TOTAL and 0 or scope[START + place]
end

-- Add the percents that scope i (packed) has reached in the windows its hold was charged in. Returns it with those marked
-- in its text: who is above all of them is asked no more.
local function add_crossed(crossed, i, packed, hold)
  local scope = read_scope(packed)
  local models = models_of(scope)
  scope[TEXTS] = string.gsub(soft_of(scope), '(%d):(%d+)', function(number, percent)
    local window = tonumber(number)
    local limit, spent, start = standing_of(scope, window)
    local charged = window == TOTAL or window ~= PREPAID and start == hold[STARTED + window]
    if window == PREPAID then charged = from_credit(hold, i) end
    if not charged or limit <= 0 or spent < share_of(limit, percent) then return nil end
    crossed[#crossed + 1] = {i, window, tonumber(percent), limit, spent, start}
    return number .. '+' .. percent
  end) .. models
  return write_scope(scope)
end

-- Keep an alert of each that was not told before; returns those. The marks in a scope's text only spare this question: they
-- are gone after any change of it, and after a refund it may cross the same threshold again.
local function tell(crossed, alerts, told_before, key_of, now)
  local names = {'total', 'day', 'week', 'month', 'prepaid'}
  local told = {}
  for _, each in ipairs(crossed) do
    local i, window, percent, limit, spent, start = unpack(each)
    local kind, id = string.match(key_of(i), ':scope:(%a+):([^:]+)$')
    local name = names[window]
    local marker = table.concat({kind, id, name, decimal(start), decimal(limit), decimal(percent)}, '|')
    if redis.call('ZADD', told_before, 'NX', start, marker) == 1 then
      redis.call('XADD', alerts, 'MAXLEN', '~', ALERTS_MAX, '*', 'at', now, 'scope', kind, 'id', id,
        'window', name, 'start', start, 'percent', percent, 'limit', limit, 'spent', spent)
      told[#told + 1] = {i, window, percent, limit, spent}
    end
  end
  if #told > 0 then redis.call('ZREMRANGEBYSCORE', told_before, '(0', now - CROSSED_KEPT_MS) end
  return told
end
