-- Appends a replacement to the stream, numbered without gaps.
-- KEYS: the stream. ARGV: token, a name for the stream should it begin now, the list, length to keep.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local number, generation = 0, ARGV[2]
if last then
  number = tonumber(string.match(last[1], '^(%d+)'))
  for i = 1, #last[2], 2 do
    if last[2][i] == 'g' then generation = last[2][i + 1] end
    if last[2][i] == 't' and less(ARGV[1], last[2][i + 1]) then return 'fenced ' .. last[2][i + 1] end
  end
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], string.format('%.0f-0', number + 1),
  'g', generation, 't', ARGV[1], 'e', ARGV[3])
return 'announced'
