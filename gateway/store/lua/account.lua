-- account: enter a top-up made to MiniToolAI, or the balance that was read there; once for each id.
-- uses: numbers scope receipt
-- KEYS  1 receipt of this id  2 account (stream)  3 packed scope of the organisation
-- ARGV  1 digest of what is asked  2 how long the receipt is kept (ms)  3 "top_up" or "balance"  4 amount (nano-USD): what
--       was paid, or what is there  5 note  6 author
-- Returns {"done" | "repeated", entry}: its id, and the fields type, amount (what it changed, signed), balance right after it,
--         spent (all the organisation had spent by then), note, author
--      or {"conflict"}: this id was used for something else
--      or {"too_much", balance before it}: it would be more than can be counted

local ACCOUNT_MAX = 9000000 * 1000000000
local digest, keep_ms, kind, asked = ARGV[1], ARGV[2], ARGV[3], amount(ARGV[4])

local reply = used_before(KEYS[1], KEYS[2], digest)
if reply then return reply end

-- What the balance has become since the latest entry: everything spent since then is gone from it.
local function balance_at(spent)
  local latest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if not latest then return 0 end
  local fields = {}
  for i = 1, #latest[2], 2 do fields[latest[2][i]] = latest[2][i + 1] end
  return tonumber(fields.balance) - (spent - tonumber(fields.spent))
end

local spent = read_scope(redis.call('GET', KEYS[3]))[SPENT + 3 * TOTAL]
local before = balance_at(spent)
local change = kind == 'top_up' and asked or asked - before
if math.max(change, before + change) > ACCOUNT_MAX then return {'too_much', before} end
return enter(KEYS[1], KEYS[2], digest, keep_ms, {'type', kind, 'amount', decimal(change),
  'balance', decimal(before + change), 'spent', decimal(spent), 'note', ARGV[5], 'author', ARGV[6]})
