-- put_scope: create or change a scope: its settings as JSON, and what admission checks packed beside its windows.
-- uses: numbers scope
-- KEYS  1 settings  2 packed scope  3 index of its kind  4 digest of its secret (keys; else same as 1)
--       5 receipt of the request (one that has an Idempotency-Key; else same as 1)
--       6 names of where its secrets are bound, a set (keys; else same as 1)  7.. settings of the scopes above it that must exist
-- ARGV  1 id  2 settings it replaces ("" to create)  3 settings (JSON)  4 flags (their bit 4: a prepaid budget)  5 expires at (ms, 0 = never)
--       6..9 limits (nano-USD, "" = none) of total, day, week, month  10 allowed models, "\n" around each
--       11 JSON stored at the digest ("" = none)
--       12..15 limits ("" = none) of requests, tokens, images a minute, and calls at once
--       16 soft thresholds, as the packed scope has them
--       17 digest of what the request asks ("" = it has no receipt)  18 how long the receipt is kept (ms)
-- Returns {"put"} or {"repeated", id that the first request created} or {"conflict"}: its receipt is of another request
--      or {"exists"} or {"changed"} (someone else changed it meanwhile) or {"missing", number of the scope above}
--      or {"lost"}: it has settings and no balance; a new one would begin at nothing

local asks = ARGV[17] ~= ''
local receipt = asks and redis.call('GET', KEYS[5])
if receipt then
  local asked, created = string.match(receipt, '^([^\n]+)\n(.+)$')
  if asked ~= ARGV[17] then return {'conflict'} end
  return {'repeated', created}
end
local current = redis.call('GET', KEYS[1])
if ARGV[2] == '' and current then return {'exists'} end
if ARGV[2] ~= '' and current ~= ARGV[2] then return {'changed'} end
for i = 7, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'missing', i - 6} end
end

local packed = redis.call('GET', KEYS[2])
if current and not packed then return {'lost'} end
local scope = packed and read_scope(packed) or {
  3, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, '',
}
scope[FLAGS], scope[EXPIRES_AT] = amount(ARGV[4]), amount(ARGV[5])
for window = TOTAL, MONTH do
  local limit = ARGV[5 + window]
  scope[LIMIT + window] = limit == '' and -1 or amount(limit)
end
for rate = REQUESTS, CONCURRENT do
  local limit = ARGV[11 + rate]
  scope[RATE_LIMIT + rate] = limit == '' and -1 or amount(limit)
end
scope[SOFT_BYTES], scope[TEXTS] = #ARGV[16], ARGV[16] .. ARGV[10]

redis.call('MSET', KEYS[1], ARGV[3], KEYS[2], write_scope(scope))
redis.call('ZADD', KEYS[3], 0, ARGV[1])
if ARGV[11] ~= '' then
  redis.call('SET', KEYS[4], ARGV[11])
  redis.call('SADD', KEYS[6], KEYS[4])
end
if asks then redis.call('SET', KEYS[5], ARGV[17] .. '\n' .. ARGV[1], 'PX', ARGV[18]) end
return {'put'}
