-- put_prices: enter prices into the schedule, and say which list is in force until when.
-- uses: numbers receipt
-- KEYS  1 receipt of this id  2 schedule (stream)  3 lists in force  4.. a list each, under its version
-- ARGV  1 digest of what is asked; "" where prices come from the price file, which leaves no receipt
--       2 how long the receipt is kept (ms)
--       3 id of the schedule's last entry when this was worked out; "" = it was empty
--       4 the instant (ms) that must still be to come; "" = none
--       5 lists in force: a line each, until when (ms) and version, the earliest first: admission nearly always needs but
--         the first
--       6.. the lists, one for each of KEYS 4..
--       behind them the prices: six values each: model, kind, since when (ms), price (JSON; "" = none), note, author
-- Returns {"done" | "repeated", entry}: with a receipt its id and its fields
--      or {"conflict"}: this id was used for something else
--      or {"past", now}: the instant is not to come any more
--      or {"changed"}: another was faster; work it out again

if ARGV[1] ~= '' then
  local reply = used_before(KEYS[1], KEYS[2], ARGV[1])
  if reply then return reply end
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= ARGV[3] then return {'changed'} end
local now = now_ms()
if ARGV[4] ~= '' and amount(ARGV[4]) <= now then return {'past', now} end

local lists = #KEYS - 3
local writes = {KEYS[3], ARGV[5]}
for i = 1, lists do
  writes[#writes + 1] = KEYS[3 + i]
  writes[#writes + 1] = ARGV[5 + i]
end
redis.call('MSET', unpack(writes))
local reply = {'done'}
for i = 6 + lists, #ARGV, 6 do
  local fields = {'model', ARGV[i], 'kind', ARGV[i + 1], 'from', ARGV[i + 2], 'price', ARGV[i + 3],
    'note', ARGV[i + 4], 'author', ARGV[i + 5]}
  if ARGV[1] ~= '' then
    reply = enter(KEYS[1], KEYS[2], ARGV[1], ARGV[2], fields)
  else
    redis.call('XADD', KEYS[2], '*', unpack(fields))
  end
end
return reply
