-- renew: put off the deadline of holds whose calls still run, and keep what each has used so far.
-- uses: numbers scope hold
-- KEYS  1 leases  2.. holds
-- ARGV  1 lease (ms), then for each hold in order: its id, and what it has used: nano-USD, prompt tokens, completion tokens, units
-- Returns {now, ids of those that nobody renewed in time, or nobody knows}. They stay as they are, as those that were settled
-- or released do: of these the call itself knows.
-- The first write is a ZREM, of nothing: above maxmemory Redis refuses the rest of a script only if its first write may grow
-- memory, and what runs must not expire there while its charge could still be settled.

local lease = amount(ARGV[1])
local now = now_ms()
local deadline = now + lease
local packed = redis.call('MGET', unpack(KEYS, 2))
local writes, leases, expired = {}, {}, {}
for i = 1, #KEYS - 1 do
  local first = 2 + (i - 1) * 5
  local hold = packed[i] and read_hold(packed[i])
  if hold and hold[STATE] == OPEN then
    hold[DEADLINE] = math.max(hold[DEADLINE], deadline)
    for number = 0, 3 do hold[SO_FAR + number] = amount(ARGV[first + 1 + number]) end
    writes[#writes + 1], writes[#writes + 2] = KEYS[i + 1], write_hold(hold)
    leases[#leases + 1], leases[#leases + 2] = decimal(hold[DEADLINE]), ARGV[first]
  elseif not hold or hold[STATE] == EXPIRED then
    expired[#expired + 1] = ARGV[first]
  end
end
if #writes > 0 then
  redis.call('ZREM', KEYS[1], '')
  redis.call('ZADD', KEYS[1], 'XX', unpack(leases))
  redis.call('MSET', unpack(writes))
end
return {now, expired}
