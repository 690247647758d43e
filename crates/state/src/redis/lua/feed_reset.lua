-- Starts the stream over with a marker at a base revision.
-- KEYS: the stream. ARGV: generation, revision, token.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then redis.call('DEL', KEYS[1]) end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
  for i = 1, #last[2], 2 do
    if last[2][i] == 't' and newer(last[2][i + 1], ARGV[3]) then return 'fenced ' .. last[2][i + 1] end
  end
end
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[1], ARGV[2] .. '-1', 'g', ARGV[1], 't', ARGV[3], 'kind', 'base')
return 'reset'
