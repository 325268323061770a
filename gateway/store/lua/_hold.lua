-- hold: the record of one hold, layout 4 (ADR 0003). Stands behind _scope, in front of every script that touches
-- holds.
--
-- Fifteen little-endian doubles, then the JSON the gateway gave at admission (who, what model, which price version).
-- A resolved hold stays as its own tombstone, so that whatever is delivered twice or late changes nothing.

local HOLD_FORMAT = '<ddddddddddddddd'
local HOLD_BYTES = 120
local STATE, AMOUNT, ADMITTED_AT, DEADLINE, POSTED, RESOLVED_AT, HOLD_TOKENS, FROM_CREDIT = 1, 2, 3, 4, 8, 9, 10, 11
local STARTED = 3
-- STARTED + 2..4: where day, week and month began for this hold. FROM_CREDIT: bit i - 1 is set where the call's scope i
-- (outermost first) had a prepaid budget when it was admitted
local SO_FAR, SO_FAR_PROMPT, SO_FAR_COMPLETION, SO_FAR_UNITS = 12, 13, 14, 15
-- What the call has used as far as its gateway has told: its price (nano-USD), tokens and units. It is what the call is
-- charged should nobody be heard of again before DEADLINE.
local ABOUT = 16                                    -- where a hold that was read has that JSON
local OPEN, CAPTURED, RELEASED, EXPIRED = 0, 1, 2, 3

local function read_hold(packed)
  local hold = {struct.unpack(HOLD_FORMAT, packed)}
  hold[ABOUT] = string.sub(packed, HOLD_BYTES + 1)  -- in place of the next position, which struct.unpack returns as well
  return hold
end

local function write_hold(hold)
  return struct.pack(HOLD_FORMAT, unpack(hold, 1, 15)) .. hold[ABOUT]
end

-- The starts of its day, week and month as an entry keeps them: whoever checks the books knows where it was posted.
local function windows_of(hold)
  return string.format('%.0f %.0f %.0f', hold[STARTED + DAY], hold[STARTED + WEEK], hold[STARTED + MONTH])
end

-- Post to every window of its scope i (outermost first) that a hold counts in: `change` to what is spent, `freed` off what
-- is held. Returns whether the scope's balances can be true afterwards; `posted_in`, if given, is told which windows.
local function post(hold, i, scope, change, freed, posted_in)
  local sound = true
  for window = TOTAL, MONTH do
    local place = 3 * window
    if window == TOTAL or scope[START + place] == hold[STARTED + window] then
      local spent, held = scope[SPENT + place] + change, scope[HELD + place] - freed
      scope[SPENT + place], scope[HELD + place] = spent, held
      sound = sound and spent <= AMOUNT_MAX and held >= 0
      if posted_in then posted_in[window] = true end
    end
  end
  local from_credit = hold[FROM_CREDIT]
  if from_credit > 0 and math.floor(from_credit / 2 ^ (i - 1)) % 2 == 1 then
    local spent, held = scope[CREDIT_SPENT] + change, scope[CREDIT_HELD] - freed
    scope[CREDIT_SPENT], scope[CREDIT_HELD] = spent, held
    sound = sound and spent <= AMOUNT_MAX and held >= 0
    if posted_in then posted_in[PREPAID] = true end
  end
  return sound
end
