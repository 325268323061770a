-- numbers: amounts as arguments and as text, and Redis's clock.
-- Not a script: it stands in front of those that need them.

local AMOUNT_MAX = 9007199254740991                 -- 2^53 - 1: up to it a double counts exactly

-- A decimal string of nano-USD as a number; anything else ends the script before its first write.
local function amount(text)
  if not string.find(text, '^%d+$') then error('not an amount: ' .. text) end
  local number = tonumber(text)
  if number > AMOUNT_MAX then error('above 2^53 - 1: ' .. text) end
  return number
end

-- Amounts that come as little-endian doubles in one argument: to read each from text takes twenty times as long.
local function amounts(packed, format)
  local numbers = {struct.unpack(format, packed)}
  local count = #numbers - 1                        -- struct.unpack returns the next position as well
  if numbers[count + 1] ~= #packed + 1 then error('not so many amounts') end
  for i = 1, count do
    local number = numbers[i]
    local whole = number >= 0 and number <= AMOUNT_MAX and number % 1 == 0
    if not whole then error('not an amount: ' .. number) end
  end
  return numbers
end

-- For text alone: tostring and .. lose digits past 14, while redis.call writes a number with all of them.
local function decimal(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
