-- Replaces all instances of a service at once.
-- KEYS: the service's index, then the hash of every version that has or gets instances.
-- ARGV: token, digest of the list; then for every hash its version and the number of its instances, followed by id and
-- text of each.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'hash' and found ~= 'none' then redis.call('DEL', KEYS[1]) end
local token = redis.call('HGET', KEYS[1], '#token') or ''
if #token < 20 and string.match(token, '^%d+$') and less(ARGV[1], token) then return 'fenced ' .. token end

-- A hash that the caller did not know of would stay behind.
local given, at = {}, 3
for _ = 2, #KEYS do
  given[ARGV[at]] = true
  at = at + 2 + 2 * tonumber(ARGV[at + 1])
end
for _, version in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.match(version, '^[%w.+-]+$') and not given[version] then return 'changed' end
end

redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[1], '#token', ARGV[1], '#digest', ARGV[2])
at = 3
for key = 2, #KEYS do
  local version, count = ARGV[at], tonumber(ARGV[at + 1])
  if count > 0 then redis.call('HSET', KEYS[1], version, count) end
  for i = at + 2, at + 2 * count, 2 do redis.call('HSET', KEYS[key], ARGV[i], ARGV[i + 1]) end
  at = at + 2 + 2 * count
end
return 'replaced'
