-- hold: the record of one hold, layout 4 (ADR 0003). Stands behind _scope, in front of every script that touches
-- holds.
--
-- Fifteen little-endian doubles, then the JSON the gateway gave at admission (who, what model, which price version).
-- A resolved hold stays as its own tombstone, so that whatever is delivered twice or late changes nothing.

local HOLD_FORMAT = '<' .. string.rep('d', 15)
local HOLD_BYTES = 8 * 15
local STATE, AMOUNT, ADMITTED_AT, DEADLINE, STARTS, POSTED, RESOLVED_AT, HOLD_TOKENS, FROM_CREDIT = 1, 2, 3, 4, 4, 8, 9, 10, 11
-- STARTS + 1..3: where day, week and month began for this hold. FROM_CREDIT: bit i - 1 is set where the call's scope i
-- (outermost first) had a prepaid budget when it was admitted
local SO_FAR, SO_FAR_PROMPT, SO_FAR_COMPLETION, SO_FAR_UNITS = 12, 13, 14, 15
-- What the call has used as far as its gateway has told: its price (nano-USD), tokens and units. It is what the call is
-- charged should nobody be heard of again before DEADLINE.
local OPEN, CAPTURED, RELEASED, EXPIRED = 0, 1, 2, 3
local STATE_NAMES = {[0] = 'open', 'captured', 'released', 'expired'}

local function read_hold(packed)
  local hold = {struct.unpack(HOLD_FORMAT, packed)}
  hold[16] = nil
  hold.about = string.sub(packed, HOLD_BYTES + 1)
  return hold
end

local function write_hold(hold)
  return struct.pack(HOLD_FORMAT, unpack(hold, 1, 15)) .. hold.about
end

-- The start of the hold's window, by the window's number in WINDOW_NAMES.
local function start_of(hold, window)
  return window == 1 and 0 or hold[STARTS + window - 1]
end

-- The same of day, week and month as an entry keeps them: whoever checks the books knows where it was posted.
local function windows_of(hold)
  return table.concat({decimal(start_of(hold, 2)), decimal(start_of(hold, 3)), decimal(start_of(hold, 4))}, ' ')
end

-- Whether what becomes of a hold is posted to a window of its scope i (outermost first).
local function counts_in(hold, i, scope, window)
  if window == PREPAID then return math.floor(hold[FROM_CREDIT] / 2 ^ (i - 1)) % 2 == 1 end
  return same_window(scope, window, start_of(hold, window))
end
