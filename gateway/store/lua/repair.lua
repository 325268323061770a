-- repair: correct one number of a scope that is not what its entries say, and write down that it was.
-- uses: scope
-- KEYS  1 scope  2 ledger stream  3 revision of the books
-- ARGV  1 id of the entry  2 which number, as `gateway.billing.audit` names it  3 what is added to it (an integer)
--       4 JSON of the entry  5 revision that the audit read  6 where its window began then (ms); 0 = it is of no window
-- Returns {"repaired", entry id} or {"unknown_scope"} or {"unknown_number"} or {"below_zero"}
--      or {"changed"}: the books were repaired or trimmed since, or another window has begun: audit them again
-- The difference is added, not the number set: what calls change meanwhile stays.

if (redis.call('GET', KEYS[3]) or '0') ~= ARGV[5] then return {'changed'} end
local packed = redis.call('GET', KEYS[1])
if not packed then return {'unknown_scope'} end
local places = {
  ['spent'] = SPENT[1], ['held'] = HELD[1], ['paid in'] = PAID_IN, ['spent of credit'] = SPENT[PREPAID],
  ['held of credit'] = HELD[PREPAID], ['calls at once'] = CALLS_OPEN, ['tokens set aside'] = TOKENS_HELD,
}
for window = 2, 4 do
  places['spent of ' .. WINDOW_NAMES[window]], places['held of ' .. WINDOW_NAMES[window]] = SPENT[window], HELD[window]
end
local place = places[ARGV[2]]
if not place then return {'unknown_number'} end

local scope = read_scope(packed)
for window = 2, 4 do
  local of_it = place == SPENT[window] or place == HELD[window]
  if of_it and decimal(scope[START[window]]) ~= ARGV[6] then return {'changed'} end
end
local repaired = scope[place] + tonumber(ARGV[3])
if repaired < 0 then return {'below_zero'} end
scope[place] = repaired
redis.call('SET', KEYS[1], write_scope(scope))
redis.call('INCR', KEYS[3])
local now = decimal(now_ms())
return {'repaired', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[1], 'cost', '0', 'at', now,
  'admitted', now, 'from_credit', '0', 'entry', ARGV[4])}
