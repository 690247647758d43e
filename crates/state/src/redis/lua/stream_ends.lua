-- The first and the last entry of a stream without their payload: id, generation and token of each.
-- KEYS: the stream.
local ends = {}
local function add(entry)
  local generation, token = '', '0'
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'g' then generation = entry[2][i + 1] end
    if entry[2][i] == 't' then token = entry[2][i + 1] end
  end
  ends[#ends + 1] = entry[1]
  ends[#ends + 1] = generation
  ends[#ends + 1] = token
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return ends end
add(first)
add(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1])
return ends
