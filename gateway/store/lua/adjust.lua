-- adjust: post a correction made by hand to a scope and all above it; all or nothing, once for each id.
-- uses: numbers scope
-- KEYS  1 receipt of this id  2 ledger stream  3.. scopes it counts at, outermost first
-- ARGV  1 id  2 "add" or "take"  3 amount (nano-USD)  4 digest of what is asked  5 how long the receipt is kept (ms)
--       6 JSON of the entry  7 the instant it is for (ms), not ahead of Redis's clock  8..10 where the day, week and month
--       of that instant begin
-- Returns {"done" | "repeated", receipt}: digest, time and id of the entry, a line each
--      or {"conflict"}: this id was used for something else
--      or {"unknown_scope", scope}
--      or {"ahead", now}: its instant is in the future
--      or {"too_little", scope, window, spent}: more would be taken than is spent
--      or {"too_much", scope}: it would be more than can be counted

local id, change, digest, keep_ms = ARGV[1], amount(ARGV[3]), ARGV[4], amount(ARGV[5])
local at, starts = amount(ARGV[7]), {0, amount(ARGV[8]), amount(ARGV[9]), amount(ARGV[10])}
if ARGV[2] == 'take' then change = -change elseif ARGV[2] ~= 'add' then error('neither add nor take') end

local receipt = redis.call('GET', KEYS[1])
if receipt then
  if string.match(receipt, '^[^\n]+') ~= digest then return {'conflict'} end
  return {'repeated', receipt}
end
local now = now_ms()
if at > now then return {'ahead', now} end

local packed = redis.call('MGET', unpack(KEYS, 3))
local writes, from_credit = {}, 0
for i = 1, #KEYS - 2 do
  if not packed[i] then return {'unknown_scope', i} end
  local scope = read_scope(packed[i])
  -- Nothing may have been admitted yet in the windows it is for.
  for window = DAY, MONTH do turn(scope, window, starts[window]) end
  if pays_ahead(scope) then from_credit = from_credit + 2 ^ (i - 1) end
  for window = TOTAL, PREPAID do
    local place, counts = SPENT + 3 * window, window == TOTAL or scope[START + 3 * window] == starts[window]
    if window == PREPAID then place, counts = CREDIT_SPENT, pays_ahead(scope) end
    if counts then
      local spent = scope[place]
      if spent + change < 0 then return {'too_little', i, window, spent} end
      if spent + change > AMOUNT_MAX then return {'too_much', i} end
      scope[place] = spent + change
    end
  end
  writes[#writes + 1] = KEYS[i + 2]
  writes[#writes + 1] = write_scope(scope)
end

redis.call('MSET', unpack(writes))
local entry = redis.call('XADD', KEYS[2], '*', 'type', 'adjustment', 'hold', id, 'cost', decimal(change), 'at', decimal(now),
  'admitted', decimal(at), 'from_credit', decimal(from_credit), 'windows',
  table.concat({decimal(starts[2]), decimal(starts[3]), decimal(starts[4])}, ' '), 'entry', ARGV[6])
receipt = table.concat({digest, decimal(now), entry}, '\n')
redis.call('SET', KEYS[1], receipt, 'PX', decimal(keep_ms))
return {'done', receipt}
