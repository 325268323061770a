-- receipt: what became of an id, so that what is sent again is entered once.
-- Not a script: it stands in front of those that keep a list of entries.
--
-- A receipt is the digest of what was asked and the entry's id, a line each; it is kept for a while. The entry itself
-- stays in its stream for ever.

-- The reply to an id that was used before; nil where it was not.
local function used_before(receipt_key, stream, digest)
  local receipt = redis.call('GET', receipt_key)
  if not receipt then return nil end
  local asked, entry = string.match(receipt, '^([^\n]+)\n(.+)$')
  if asked ~= digest then return {'conflict'} end
  return {'repeated', redis.call('XRANGE', stream, entry, entry)[1]}
end

local function enter(receipt_key, stream, digest, keep_ms, fields)
  local entry = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('SET', receipt_key, digest .. '\n' .. entry, 'PX', keep_ms)
  return {'done', redis.call('XRANGE', stream, entry, entry)[1]}
end
