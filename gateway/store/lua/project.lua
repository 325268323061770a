-- project: add one batch of ledger entries, already summed, to the report cells; exactly once.
--
-- The sums of one axis (organisation, team, user or key) and the same periods are a block. A sum is sent once and goes to
-- a sheet of each grain; the names of its fields are put together here.
-- KEYS  1 checkpoint  2.. of each block, grain by grain, the sheet (hash) of each sum; then, grain by grain, a set of owners
-- ARGV  1 checkpoint this batch starts behind  2 checkpoint it ends at  3 number of blocks
--       then of each block: number of grains, of sums and of owners; for each grain its period and the time to live of what
--       is kept by it (ms, 0 = for ever); "|model|kind|" of each sum; for each sum an amount of each of MEASURES; the owners
-- Returns {"applied"} or {"moved", checkpoint}: someone else applied entries meanwhile; read again from there

local MEASURES = {'requests', 'prompt_tokens', 'completion_tokens', 'images', 'cost_nano_usd', 'estimated_nano_usd', 'flagged'}

local checkpoint = redis.call('GET', KEYS[1]) or '0-0'
if checkpoint ~= ARGV[1] then return {'moved', checkpoint} end

local last_key, last_argument = 1, 3
local function next_key()
  last_key = last_key + 1
  return KEYS[last_key]
end
local function next_argument()
  last_argument = last_argument + 1
  return ARGV[last_argument]
end
local function next_number() return tonumber(next_argument()) end

local function keep_for(key, ttl_ms)
  if ttl_ms ~= '0' then redis.call('PEXPIRE', key, ttl_ms) end
end

local function add_to(sheet, place, amounts)
  for i = 1, #MEASURES do
    local amount = ARGV[amounts + i]
    if amount ~= '0' then redis.call('HINCRBY', sheet, place .. MEASURES[i], amount) end
  end
end

local function add_block()
  local grains, sums, owners = next_number(), next_number(), next_number()
  local periods, ttls_ms = {}, {}
  for grain = 1, grains do
    periods[grain], ttls_ms[grain] = next_argument(), next_argument()
  end
  local first_name = last_argument + 1
  local first_amount = first_name + sums
  for grain = 1, grains do
    for sum = 0, sums - 1 do
      local sheet = next_key()
      add_to(sheet, periods[grain] .. ARGV[first_name + sum], first_amount + sum * #MEASURES - 1)
      keep_for(sheet, ttls_ms[grain])
    end
  end
  local first_owner = first_amount + sums * #MEASURES
  last_argument = first_owner + owners - 1
  for grain = 1, grains do
    local set = next_key()
    redis.call('SADD', set, unpack(ARGV, first_owner, last_argument))
    keep_for(set, ttls_ms[grain])
  end
end

for _ = 1, tonumber(ARGV[3]) do add_block() end
redis.call('SET', KEYS[1], ARGV[2])
return {'applied'}
