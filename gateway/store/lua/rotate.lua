-- rotate: let a new secret stand for a key, and those before it only for a while longer.
-- uses: numbers
-- KEYS  1 settings of the key  2 names of the keys below that bind a secret to it (a set)  3 where the new secret is bound
--       4 receipt of the request (one that has an Idempotency-Key; else same as 1)  5.. where secrets are bound so far
-- ARGV  1 JSON stored at the binding  2 how long the secrets so far stay good (ms)
--       3 digest of what the request asks ("" = it has no receipt)  4 how long the receipt is kept (ms)  5 the key's id
--       6 the key's settings as they were read
-- Returns {"rotated", until when (ms)} or {"repeated"} or {"conflict"}: its receipt is of another request
--      or {"edited"}: its settings are others by now, or {"changed"}: it has a secret by now that is not among KEYS

local asks = ARGV[3] ~= ''
local receipt = asks and redis.call('GET', KEYS[4])
if receipt then
  if string.match(receipt, '^[^\n]+') ~= ARGV[3] then return {'conflict'} end
  return {'repeated'}
end
if redis.call('GET', KEYS[1]) ~= ARGV[6] then return {'edited'} end
local known = 0
for i = 5, #KEYS do known = known + redis.call('SISMEMBER', KEYS[2], KEYS[i]) end
if redis.call('SCARD', KEYS[2]) > known then return {'changed'} end

local grace = amount(ARGV[2])
-- The new one first: above maxmemory Redis refuses it before anything was taken away.
redis.call('SET', KEYS[3], ARGV[1])
redis.call('SADD', KEYS[2], KEYS[3])
for i = 5, #KEYS do
  local left = redis.call('PTTL', KEYS[i])
  if grace == 0 then redis.call('DEL', KEYS[i]) end
  if left == -1 or left > grace then redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
  redis.call((left == -2 or grace == 0) and 'SREM' or 'SADD', KEYS[2], KEYS[i])
end
if asks then redis.call('SET', KEYS[4], ARGV[3] .. '\n' .. ARGV[5], 'PX', ARGV[4]) end
return {'rotated', now_ms() + grace}
