-- Where a reader of all lists begins: the last entry of the stream without its payload, and the digests of all
-- services, as of one moment. A key of another type is told as `false`.
-- KEYS: the stream, the digests.
local function is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == wanted or found == 'none'
end
local ends, digests = 'damaged', 'damaged'
if is(KEYS[1], 'stream') then
  ends = {}
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if last then
    local fields = {}
    for i = 1, #last[2], 2 do fields[last[2][i]] = last[2][i + 1] end
    ends = { last[1], fields.g or '', fields.n or '', fields.d or '' }
  end
end
if is(KEYS[2], 'hash') then digests = redis.call('HGETALL', KEYS[2]) end
return { ends, digests }
