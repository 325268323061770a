-- project: add one batch of ledger entries, already summed, to the report cells; exactly once.
-- KEYS  1 checkpoint  2.. sheets of cells (hashes), then the sets of their owners
-- ARGV  1 checkpoint this batch starts behind  2 checkpoint it ends at  3 number of sheets
--       then for each sheet in order: number of fields, time to live (ms, 0 = for ever), and so many field, amount pairs
--       then for each set in order: number of owners, time to live, and so many owners
-- Returns {"applied"} or {"moved", checkpoint}: someone else applied entries meanwhile; read again from there

local checkpoint = redis.call('GET', KEYS[1]) or '0-0'
if checkpoint ~= ARGV[1] then return {'moved', checkpoint} end

local last_sheet, next_argument = 1 + tonumber(ARGV[3]), 4
for i = 2, #KEYS do
  local count, ttl_ms = tonumber(ARGV[next_argument]), tonumber(ARGV[next_argument + 1])
  next_argument = next_argument + 2
  for _ = 1, count do
    if i <= last_sheet then
      redis.call('HINCRBY', KEYS[i], ARGV[next_argument], ARGV[next_argument + 1])
      next_argument = next_argument + 2
    else
      redis.call('SADD', KEYS[i], ARGV[next_argument])
      next_argument = next_argument + 1
    end
  end
  if ttl_ms > 0 then redis.call('PEXPIRE', KEYS[i], ttl_ms) end
end
redis.call('SET', KEYS[1], ARGV[2])
return {'applied'}
