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

-- Whether what becomes of a hold is posted to the credit of its scope i (outermost first).
local function from_credit(hold, i)
  return hold[FROM_CREDIT] > 0 and math.floor(hold[FROM_CREDIT] / 2 ^ (i - 1)) % 2 == 1
end

-- A hold's scope i (packed) after a posting: `change` is added to what is spent in each window that the hold counts in.
-- `ended`: what it set aside is free again. `tokens`, if given, are taken from the bucket. Returns the scope packed anew,
-- and how many bytes of thresholds it has.
-- Numbers in locals, for a settlement does this with four scopes: in a table it would take half as long again.
local function posted(packed, hold, i, change, ended, tokens, now)
  local version, flags, expires_at, total_limit, day_limit, week_limit, month_limit, total_spent, total_held,
    day, day_spent, day_held, week, week_spent, week_held, month, month_spent, month_held,
    request_limit, token_limit, image_limit, call_limit, requests_at, tokens_at, images_at, tokens_held, calls_open,
    paid_in, credit_spent, credit_held, soft_bytes = struct.unpack(SCOPE_FORMAT, packed)
  local freed = ended and hold[AMOUNT] or 0

  total_spent, total_held = total_spent + change, total_held - freed
  local sound = total_spent <= AMOUNT_MAX and total_held >= 0
  if day == hold[STARTED + DAY] then
    day_spent, day_held = day_spent + change, day_held - freed
    sound = sound and day_spent <= AMOUNT_MAX and day_held >= 0
  end
  if week == hold[STARTED + WEEK] then
    week_spent, week_held = week_spent + change, week_held - freed
    sound = sound and week_spent <= AMOUNT_MAX and week_held >= 0
  end
  if month == hold[STARTED + MONTH] then
    month_spent, month_held = month_spent + change, month_held - freed
    sound = sound and month_spent <= AMOUNT_MAX and month_held >= 0
  end
  if from_credit(hold, i) then
    credit_spent, credit_held = credit_spent + change, credit_held - freed
    sound = sound and credit_spent <= AMOUNT_MAX and credit_held >= 0
  end
  if ended then tokens_held, calls_open = tokens_held - hold[HOLD_TOKENS], calls_open - 1 end
  if not sound and tokens then error('the books do not add up') end
  if tokens then tokens_at = taken(tokens_at, token_limit, tokens, now) end

  return struct.pack(SCOPE_FORMAT, version, flags, expires_at, total_limit, day_limit, week_limit, month_limit,
    total_spent, total_held, day, day_spent, day_held, week, week_spent, week_held, month, month_spent, month_held,
    request_limit, token_limit, image_limit, call_limit, requests_at, tokens_at, images_at, tokens_held, calls_open,
    paid_in, credit_spent, credit_held, soft_bytes) .. string.sub(packed, SCOPE_BYTES + 1), soft_bytes
end
