-- trim: take the oldest entries out of the ledger, behind an entry that carries what they added up to.
-- KEYS  1 ledger stream  2 what was trimmed: id of the entry that carries it  3 checkpoint of the reports
--       4 revision of the books
-- ARGV  1 id of the last entry to go  2 id of the first that stays  3 the entry that carried before ("" = none)
--       4 id of the new entry (as a hold's)  5 its JSON  6 what it carries
-- Returns {"trimmed", entries that went, id of the new entry}
--      or {"moved"}: someone else has trimmed meanwhile
--      or {"behind"}: the reports have not counted these entries yet
-- The first write is an XTRIM: above maxmemory Redis refuses the rest of a script only if its first write may grow memory,
-- so that a full Redis can be trimmed.

local function is_before(id, other)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  if tonumber(ms) ~= tonumber(other_ms) then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(number) < tonumber(other_number)
end

if (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return {'moved'} end
if is_before(redis.call('GET', KEYS[3]) or '0-0', ARGV[1]) then return {'behind'} end
local now = redis.call('TIME')
local now_ms = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local count = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
local entry = redis.call('XADD', KEYS[1], '*', 'type', 'adjustment', 'hold', ARGV[4], 'cost', '0', 'at', now_ms,
  'admitted', now_ms, 'from_credit', '0', 'entry', ARGV[5], 'carries', ARGV[6])
redis.call('SET', KEYS[2], entry)
redis.call('INCR', KEYS[4])
return {'trimmed', count, entry}
