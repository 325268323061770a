-- job: whose an image job is. Its record is a hash: "about" (JSON, written once), "state", "image_url", "refunded".
-- The upstream may name one job to two calls: only the one that bound it first may end it or be refunded for it.

-- "unbound": nobody's (yet); "foreign": another call's, or another image's of this call; nil: it is this image's.
local function not_own(about, hold_id, number)
  if not about then return 'unbound' end
  local owner = cjson.decode(about)
  if owner.hold ~= hold_id or (owner.number or 0) ~= tonumber(number) then return 'foreign' end
end
