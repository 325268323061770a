-- repair: correct one number of a scope that is not what its entries say, and write down that it was.
-- uses: scope
-- KEYS  1 scope  2 ledger stream
-- ARGV  1 id of the entry  2 which number, as `gateway.billing.audit` names it  3 what it is  4 what it should be
--       5 JSON of the entry
-- Returns {"repaired", entry id} or {"unknown_scope"} or {"unknown_number"} or {"below_zero"}
-- The difference is added, not the number set: what calls change meanwhile stays.

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
-- What is wrong may be below zero, too.
local is, should = tonumber(ARGV[3]), tonumber(ARGV[4])
local repaired = scope[place] + should - is
if repaired < 0 then return {'below_zero'} end
scope[place] = repaired
redis.call('SET', KEYS[1], write_scope(scope))
local now = decimal(now_ms())
return {'repaired', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[1], 'cost', '0', 'at', now,
  'admitted', now, 'from_credit', '0', 'entry', ARGV[5])}
