-- The first and the last entry of a stream without their payload: id, generation, token, nonce and digest of each.
-- KEYS: the stream.
local ends = {}
local function add(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  ends[#ends + 1] = entry[1]
  ends[#ends + 1] = fields.g or ''
  ends[#ends + 1] = fields.t or '0'
  ends[#ends + 1] = fields.n or ''
  ends[#ends + 1] = fields.d or ''
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return ends end
add(first)
add(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1])
return ends
