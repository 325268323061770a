-- hold: the record of one hold, layout 2 (ADR 0003). Stands in front of every script that touches holds.
--
-- Ten little-endian doubles, then the JSON the gateway gave at admission (who, what model, which price version).
-- A resolved hold stays as its own tombstone, so that whatever is delivered twice or late changes nothing.

local HOLD_FORMAT = '<' .. string.rep('d', 10)
local HOLD_BYTES = 8 * 10
local STATE, AMOUNT, ADMITTED_AT, DEADLINE, STARTS, POSTED, RESOLVED_AT, HOLD_TOKENS = 1, 2, 3, 4, 4, 8, 9, 10
-- STARTS + 1..3: where day, week and month began for this hold
local OPEN, CAPTURED, RELEASED, EXPIRED = 0, 1, 2, 3
local STATE_NAMES = {[0] = 'open', 'captured', 'released', 'expired'}

local function read_hold(packed)
  local hold = {struct.unpack(HOLD_FORMAT, packed)}
  hold[11] = nil
  hold.about = string.sub(packed, HOLD_BYTES + 1)
  return hold
end

local function write_hold(hold)
  return struct.pack(HOLD_FORMAT, unpack(hold, 1, 10)) .. hold.about
end

-- The start of the hold's window, by the window's number in WINDOW_NAMES.
local function start_of(hold, window)
  return window == 1 and 0 or hold[STARTS + window - 1]
end
