-- scope: the packed string of one scope, layout 3 (ADR 0003), and the windows inside it.
-- Not a script: it stands in front of every script that touches scopes.
--
-- A scope is 31 little-endian doubles, then its soft thresholds ("1:50 1+80 4:90": number of the window, percent; "+"
-- once that is told, until its limit or its window is another), then its allow-list of models: "\n" before, between and
-- after the names, or nothing where every model is allowed. One GET reads it, one SET writes it. Amounts are nano-USD below
-- 2^53, where a double counts exactly.
--
-- What every call runs (admit.lua, `posted` in _hold.lua) takes the doubles into locals, in the order of ADR 0003; all else
-- reads a scope into a table.

local SCOPE_FORMAT = '<ddddddddddddddddddddddddddddddd'
local SCOPE_BYTES = 248
local TEXTS = 32                                    -- where a scope that was read has its thresholds and models
local VERSION, FLAGS, EXPIRES_AT = 1, 2, 3          -- EXPIRES_AT in ms, 0 = never
local BLOCKED, REVOKED, PAYS_AHEAD = 1, 2, 4        -- bits of FLAGS; PAYS_AHEAD: it has a prepaid budget

-- Windows by their numbers. A scope has at LIMIT + window its limit (-1 = none), at SPENT + 3 * window and HELD + 3 * window
-- its balances, and at START + 3 * window (day, week and month) where it began. The prepaid one is no window in time: it
-- counts the calls that were admitted while the scope had a prepaid budget, and stands elsewhere (ADR 0011).
local TOTAL, DAY, WEEK, MONTH, PREPAID = 1, 2, 3, 4, 5
local LIMIT, START, SPENT, HELD = 3, 4, 5, 6
local PAID_IN, CREDIT_SPENT, CREDIT_HELD = 28, 29, 30

-- Rates (ADR 0010). RATE_LIMIT + 1..4: requests, tokens, images a minute and calls at once; -1 = no limit.
-- ARRIVAL + 1..3: theoretical arrival time (ms) of requests, tokens, images: a bucket is empty a minute ahead of now.
local REQUESTS, TOKENS, IMAGES, CONCURRENT = 1, 2, 3, 4
local RATE_LIMIT, ARRIVAL = 18, 22
local TOKENS_HELD, CALLS_OPEN = 26, 27
local MINUTE_MS = 60000

local SOFT_BYTES = 31

local function read_scope(packed)
  local scope = {struct.unpack(SCOPE_FORMAT, packed)}
  scope[TEXTS] = string.sub(packed, SCOPE_BYTES + 1)  -- in place of the next position, which struct.unpack returns as well
  return scope
end

local function write_scope(scope)
  return struct.pack(SCOPE_FORMAT, unpack(scope, 1, 31)) .. scope[TEXTS]
end

local function soft_of(scope)
  return string.sub(scope[TEXTS], 1, scope[SOFT_BYTES])
end

local function models_of(scope)
  return string.sub(scope[TEXTS], scope[SOFT_BYTES] + 1)
end

-- The limit or the start of a window is another one: what was told of it says nothing about this one.
local function forget_told(scope, window)
  if scope[SOFT_BYTES] > 0 then
    scope[TEXTS] = string.gsub(soft_of(scope), window .. '%+', window .. ':') .. models_of(scope)
  end
end

-- Begin a window anew where a scope still counts an earlier one.
local function turn(scope, window, start)
  local place = 3 * window
  if scope[START + place] < start then
    scope[START + place], scope[SPENT + place], scope[HELD + place] = start, 0, 0
    forget_told(scope, window)
  end
end

local function pays_ahead(scope)
  return scope[FLAGS] >= PAYS_AHEAD
end

-- When a bucket is full again (ms) once an amount is taken from it, for good. Whatever is taken, it is empty for no longer
-- than a minute.
local function taken(arrival, limit, amount_taken, now)
  if limit <= 0 then return arrival end
  if arrival < now then arrival = now end
  arrival = arrival + amount_taken * MINUTE_MS / limit
  return arrival > now + MINUTE_MS and now + MINUTE_MS or arrival
end
