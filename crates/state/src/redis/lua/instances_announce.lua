-- Appends a replacement to the stream, numbered without gaps and linked to the entry before it, and keeps the digest
-- of every service's list. What is damaged of either key is begun anew: readers are then told to load again.
-- KEYS: the stream, the digests. ARGV: token, a name for the stream should it begin now, nonce, service, digest of its
-- list, the list, length to keep, 1 to add all digests up again.
-- Digests are 16 hexadecimal digits, added modulo 2^64 in halves: Lua numbers are exact to 2^53 only.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local function is_digest(text) return text and #text == 16 and string.match(text, '^%x+$') end
local function half(text, from) return tonumber(string.sub(text, from, from + 7), 16) end
local function plus(a, b, sign)
  local low = half(a, 9) + sign * half(b, 9)
  local high = half(a, 1) + sign * half(b, 1) + math.floor(low / 4294967296)
  return string.format('%08x%08x', high % 4294967296, low % 4294967296)
end

for i, wanted in ipairs({ 'stream', 'hash' }) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= wanted and found ~= 'none' then redis.call('DEL', KEYS[i]) end
end
local last, entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1], {}
if last then
  for i = 1, #last[2], 2 do entry[last[2][i]] = last[2][i + 1] end
end
for _, token in ipairs({ entry.t or '', redis.call('HGET', KEYS[2], '#token') or '' }) do
  if #token < 20 and string.match(token, '^%d+$') and less(ARGV[1], token) then return 'fenced ' .. token end
end

local number, generation, previous = 0, ARGV[2], ''
local goes_on = last and string.match(last[1], '^%d+%-0$') and #last[1] < 18
  and (entry.g or '') ~= '' and (entry.n or '') ~= '' and is_digest(entry.d)
if goes_on then
  number, generation, previous = tonumber(string.match(last[1], '^%d+')), entry.g, entry.n
else
  redis.call('DEL', KEYS[1])
end

local zero = '0000000000000000'
local before = redis.call('HGET', KEYS[2], ARGV[4])
local adds_up = goes_on and ARGV[8] ~= '1' and (not before or is_digest(before))
  and redis.call('HGET', KEYS[2], '#digest') == entry.d
redis.call('HSET', KEYS[2], ARGV[4], ARGV[5], '#token', ARGV[1])
local total = zero
if adds_up then
  total = plus(plus(entry.d, before or zero, -1), ARGV[5], 1)
else
  local held = redis.call('HGETALL', KEYS[2])
  for i = 1, #held, 2 do
    if string.sub(held[i], 1, 1) ~= '#' then
      if is_digest(held[i + 1]) and string.match(held[i], '^[a-z0-9][a-z0-9._-]*$') then
        total = plus(total, held[i + 1], 1)
      else
        redis.call('HDEL', KEYS[2], held[i])
      end
    end
  end
end
redis.call('HSET', KEYS[2], '#digest', total)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[7], string.format('%.0f-0', number + 1),
  'g', generation, 't', ARGV[1], 'n', ARGV[3], 'p', previous, 'd', total, 'e', ARGV[6])
return 'announced'
