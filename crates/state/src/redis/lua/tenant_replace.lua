-- Writes a tenant's record anew, whatever is there.
-- KEYS: the tenant's metadata, services, schemas. ARGV: token; then for each key the number of its fields, and those;
-- nothing more: removed.
local at = redis.pcall('HGET', KEYS[1], '#at')
if type(at) == 'string' and newer(string.match(at, '^(%d+) '), ARGV[1]) then
  return 'fenced ' .. string.match(at, '^(%d+) ')
end
redis.call('DEL', unpack(KEYS))
local i = 2
for key = 1, #KEYS do
  local last = i + 2 * tonumber(ARGV[i] or 0)
  for field = i + 1, last, 2 do redis.call('HSET', KEYS[key], ARGV[field], ARGV[field + 1]) end
  i = last + 1
end
return 'replaced'
