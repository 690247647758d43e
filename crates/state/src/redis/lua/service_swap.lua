-- Writes a service's record, unless someone wrote it since it was read.
-- KEYS: the record, its guard. ARGV: the guard as it was read (empty: none), the new guard, the new record
-- (empty: removed).
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 'changed' end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1], KEYS[2])
else
  redis.call('MSET', KEYS[1], ARGV[3], KEYS[2], ARGV[2])
end
return 'swapped'
