-- project: add one batch of ledger entries, already summed, to the report cells; exactly once.
--
-- The sums of one axis (organisation, team, user or key) and the same periods are a block. A sum is sent once and goes to
-- a sheet of each grain; the names of its fields are put together here.
-- Tags are an axis apart: a sheet's time has cells of so many of them and no more; the rest are counted together. Which have
-- cells of their own is what their set of owners says.
-- KEYS  1 checkpoint  2.. of each block, grain by grain, the sheet (hash) of each sum; then, grain by grain, a set of owners;
--       then of each time of tags: the set of owners, the sheet of those that are too many, the sheet of each tag
-- ARGV  1 checkpoint this batch starts behind  2 checkpoint it ends at  3 number of blocks
--       then of each block: number of grains, of sums and of owners; for each grain its period and the time to live of what
--       is kept by it (ms, 0 = for ever); "|model|kind|" of each sum; for each sum an amount of each of MEASURES; the owners
--       then the number of times of tags, and of each: number of tags; of each tag its name, the number of its sums, and of
--       each sum the beginning of its fields' names and an amount of each of MEASURES
-- Returns {"applied"} or {"moved", checkpoint}: someone else applied entries meanwhile; read again from there

local MEASURES = {'requests', 'prompt_tokens', 'completion_tokens', 'images', 'cost_nano_usd', 'estimated_nano_usd', 'flagged'}
local TAGS_MAX, OTHER_TAGS = 1000, 'other'

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

-- Where a tag is counted: in its own sheet as long as there is room for one more, else in the one of all others.
local function sheet_of_tag(set, tag, own, other)
  if redis.call('SISMEMBER', set, tag) == 1 then return own end
  if redis.call('SCARD', set) < TAGS_MAX then
    redis.call('SADD', set, tag)
    return own
  end
  redis.call('SADD', set, OTHER_TAGS)
  return other
end

local function add_tags()
  local set, other = next_key(), next_key()
  for _ = 1, next_number() do
    local sheet = sheet_of_tag(set, next_argument(), next_key(), other)
    for _ = 1, next_number() do
      add_to(sheet, next_argument(), last_argument)
      last_argument = last_argument + #MEASURES
    end
  end
end

for _ = 1, tonumber(ARGV[3]) do add_block() end
for _ = 1, next_number() do add_tags() end
redis.call('SET', KEYS[1], ARGV[2])
return {'applied'}
