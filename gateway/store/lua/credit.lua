-- credit: pay into a prepaid budget, or move credit there from another scope; all or nothing, once for each id.
-- uses: numbers scope
-- KEYS  1 receipt of this id  2 ledger stream  3 credits (these entries once more, to be listed)  4 scope it goes to
--       5 scope it is taken from (a transfer has one)
-- ARGV  1 id  2 amount (nano-USD)  3 digest of what is asked  4 how long the receipt is kept (ms)
--       5 JSON of the entry  6 JSON of the entry at the scope it is taken from
-- Returns {"done" | "repeated", receipt}: digest, time, id of the entry, paid in, spent and held after it, a line each
--      or {"conflict"}: this id was used for something else
--      or {"unknown_scope", 1 it goes to, 2 it is taken from} or {"not_prepaid"}
--      or {"too_much", paid in}: it would be more than can be counted
--      or {"too_little", paid in, spent, held} of the scope it would be taken from

local CREDIT_MAX = 9000000 * 1000000000
local id, asked, digest, keep_ms = ARGV[1], amount(ARGV[2]), ARGV[3], amount(ARGV[4])
if asked == 0 or asked > CREDIT_MAX then error('not an amount of credit: ' .. ARGV[2]) end

local receipt = redis.call('GET', KEYS[1])
if receipt then
  if string.match(receipt, '^[^\n]+') ~= digest then return {'conflict'} end
  return {'repeated', receipt}
end

local packed = redis.call('MGET', unpack(KEYS, 4))
for i = 1, #KEYS - 3 do
  if not packed[i] then return {'unknown_scope', i} end
end
local scope, giver = read_scope(packed[1]), packed[2] and read_scope(packed[2])
if not pays_ahead(scope) then return {'not_prepaid'} end
if scope[PAID_IN] + asked > CREDIT_MAX then return {'too_much', scope[PAID_IN]} end
if giver and giver[PAID_IN] - giver[CREDIT_SPENT] - giver[CREDIT_HELD] < asked then
  return {'too_little', giver[PAID_IN], giver[CREDIT_SPENT], giver[CREDIT_HELD]}
end

local now = now_ms()
local kind = giver and 'transfer' or 'credit'
local function write_entry(change, json)
  local fields = {'type', kind, 'hold', id, 'cost', '0', 'at', decimal(now), 'admitted', decimal(now),
    'from_credit', '0', 'credit', change, 'entry', json}
  local entry = redis.call('XADD', KEYS[2], '*', unpack(fields))
  redis.call('XADD', KEYS[3], entry, unpack(fields))
  return entry
end

scope[PAID_IN] = scope[PAID_IN] + asked
forget_told(scope, PREPAID)
redis.call('SET', KEYS[4], write_scope(scope))
if giver then
  giver[PAID_IN] = giver[PAID_IN] - asked
  forget_told(giver, PREPAID)
  redis.call('SET', KEYS[5], write_scope(giver))
  write_entry('-' .. decimal(asked), ARGV[6])
end
local entry = write_entry(decimal(asked), ARGV[5])
receipt = table.concat({digest, decimal(now), entry, decimal(scope[PAID_IN]), decimal(scope[CREDIT_SPENT]),
  decimal(scope[CREDIT_HELD])}, '\n')
redis.call('SET', KEYS[1], receipt, 'PX', decimal(keep_ms))
return {'done', receipt}
