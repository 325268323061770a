-- scope: the packed string of one scope, layout 3 (ADR 0003), and the windows inside it.
-- Not a script: it stands in front of every script that touches scopes.
--
-- A scope is 31 little-endian doubles, then its soft thresholds ("1:50 1+80 4:90": number of the window, percent; "+" once
-- that is told, until its limit or its window is another), then its allow-list of models: "\n" before, between and after the names, or nothing where every model is allowed. One GET
-- reads it, one SET writes it. Amounts are nano-USD below 2^53, where a double counts exactly.

local SCOPE_FORMAT = '<' .. string.rep('d', 31)
local SCOPE_BYTES = 8 * 31
local VERSION, FLAGS, EXPIRES_AT = 1, 2, 3          -- EXPIRES_AT in ms, 0 = never
local LIMITS = 3                                    -- LIMITS + 1..4: total, day, week, month; -1 = no limit
local BLOCKED, REVOKED, PAYS_AHEAD = 1, 2, 4        -- bits of FLAGS; PAYS_AHEAD: it has a prepaid budget
local WINDOW_NAMES = {'total', 'day', 'week', 'month', 'prepaid'}
local NANO_USD_MAX = 9007199254740991               -- 2^53 - 1

-- Where a window's spent and held stand. The total has no start: it needs none. The fifth is no window in time: it
-- counts the calls that were admitted while the scope had a prepaid budget (ADR 0011).
local SPENT = {8, 11, 14, 17, 29}
local HELD = {9, 12, 15, 18, 30}
local START = {nil, 10, 13, 16}

-- Rates (ADR 0010). RATE_LIMIT + 1..4: requests, tokens, images a minute and calls at once; -1 = no limit.
-- ARRIVAL + 1..3: theoretical arrival time (ms) of requests, tokens, images: a bucket is empty a minute ahead of now.
local RATE_LIMIT, ARRIVAL = 18, 22
local TOKENS_HELD, CALLS_OPEN = 26, 27

local PREPAID, PAID_IN, SOFT_BYTES = 5, 28, 31
local REQUESTS, TOKENS, IMAGES, CONCURRENT = 1, 2, 3, 4
local MINUTE_MS = 60000

-- How much of a minute's bucket is used, in ms of refill.
local function used_ms(scope, rate, now)
  return math.max(0, scope[ARRIVAL + rate] - now)
end

-- How much of it is set aside for running calls, in the same measure: no time brings that back, but their end.
local function held_ms(scope, rate)
  if rate ~= TOKENS then return 0 end
  return scope[TOKENS_HELD] * MINUTE_MS / scope[RATE_LIMIT + TOKENS]
end

-- Take an amount from a bucket, for good. Whatever is taken, it is empty for no longer than a minute.
local function take(scope, rate, amount_taken, now)
  local limit = scope[RATE_LIMIT + rate]
  if limit > 0 then
    local arrival = math.max(now, scope[ARRIVAL + rate]) + amount_taken * MINUTE_MS / limit
    scope[ARRIVAL + rate] = math.min(now + MINUTE_MS, arrival)
  end
end

-- A bucket that is empty for longer was emptied before the clock was set back: from now on it is an empty one of this
-- clock. Returns whether there was any.
local function heed_clock(scope, now)
  local changed = false
  for rate = REQUESTS, IMAGES do
    if scope[ARRIVAL + rate] > now + MINUTE_MS then
      scope[ARRIVAL + rate], changed = now + MINUTE_MS, true
    end
  end
  return changed
end

local function read_scope(packed)
  local scope = {struct.unpack(SCOPE_FORMAT, packed)}
  scope[32] = nil                                   -- struct.unpack also returns the next position
  scope.soft = string.sub(packed, SCOPE_BYTES + 1, SCOPE_BYTES + scope[SOFT_BYTES])
  scope.models = string.sub(packed, SCOPE_BYTES + scope[SOFT_BYTES] + 1)
  return scope
end

local function write_scope(scope)
  return struct.pack(SCOPE_FORMAT, unpack(scope, 1, 31)) .. scope.soft .. scope.models
end

-- The limit or the start of a window is another one: what was told of it says nothing about this one.
local function forget_told(scope, window)
  scope.soft = string.gsub(scope.soft, window .. '%+', window .. ':')
end

local function pays_ahead(scope)
  return math.floor(scope[FLAGS] / PAYS_AHEAD) % 2 == 1
end

-- What bounds a window; -1 where nothing does.
local function limit_of(scope, window)
  if window ~= PREPAID then return scope[LIMITS + window] end
  return pays_ahead(scope) and scope[PAID_IN] or -1
end

-- A decimal string of nano-USD as a number; anything else ends the script before its first write.
local function amount(text)
  if not string.find(text, '^%d+$') then error('not an amount: ' .. text) end
  local number = tonumber(text)
  if number > NANO_USD_MAX then error('above 2^53 - 1: ' .. text) end
  return number
end

local function decimal(number)
  return string.format('%.0f', number)              -- tostring and .. lose digits past 14
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whether a posting that was admitted in a window (by its start) belongs to the one the scope counts now.
local function same_window(scope, window, start)
  return window == 1 or scope[START[window]] == start
end
