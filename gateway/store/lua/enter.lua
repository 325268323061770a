-- enter: add an entry to a list that only grows, once for each id.
-- uses: receipt
-- KEYS  1 receipt of this id  2 list (stream)
-- ARGV  1 digest of what is asked  2 how long the receipt is kept (ms)  3.. fields of the entry, each with its value behind it
-- Returns {"done" | "repeated", entry}: its id and its fields
--      or {"conflict"}: this id was used for something else

return used_before(KEYS[1], KEYS[2], ARGV[1]) or enter(KEYS[1], KEYS[2], ARGV[1], ARGV[2], {unpack(ARGV, 3)})
