-- repair: correct one number of a scope that is not what its entries say, and write down that it was.
-- uses: numbers scope
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
  ['spent'] = SPENT + 3 * TOTAL, ['held'] = HELD + 3 * TOTAL, ['paid in'] = PAID_IN, ['spent of credit'] = CREDIT_SPENT,
  ['held of credit'] = CREDIT_HELD, ['calls at once'] = CALLS_OPEN, ['tokens set aside'] = TOKENS_HELD,
  ['spent of day'] = SPENT + 3 * DAY, ['held of day'] = HELD + 3 * DAY,
  ['spent of week'] = SPENT + 3 * WEEK, ['held of week'] = HELD + 3 * WEEK,
  ['spent of month'] = SPENT + 3 * MONTH, ['held of month'] = HELD + 3 * MONTH,
}
local place = places[ARGV[2]]
if not place then return {'unknown_number'} end

local scope = read_scope(packed)
for window = DAY, MONTH do
  local of_it = place == SPENT + 3 * window or place == HELD + 3 * window
  if of_it and decimal(scope[START + 3 * window]) ~= ARGV[6] then return {'changed'} end
end
local repaired = scope[place] + tonumber(ARGV[3])
if repaired < 0 then return {'below_zero'} end
scope[place] = repaired
redis.call('SET', KEYS[1], write_scope(scope))
redis.call('INCR', KEYS[3])
local now = decimal(now_ms())
return {'repaired', redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', ARGV[1], 'cost', '0', 'at', now,
  'admitted', now, 'from_credit', '0', 'entry', ARGV[4])}
