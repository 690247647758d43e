-- Writes a service's record anew, whatever is there.
-- KEYS: the record, its guard. ARGV: token, the new guard, the new record (empty: removed).
local held = redis.pcall('GET', KEYS[2])
if type(held) == 'string' and newer(string.match(held, '^(%d+) '), ARGV[1]) then
  return 'fenced ' .. string.match(held, '^(%d+) ')
end
redis.call('DEL', unpack(KEYS))
if ARGV[3] ~= '' then redis.call('MSET', KEYS[1], ARGV[3], KEYS[2], ARGV[2]) end
return 'replaced'
