-- Takes a router off the list, and remembers that its run ended until that expires.
-- KEYS: the list, those that left. ARGV: router, milliseconds, its run among those that left.
for _, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok ~= 'zset' then redis.call('DEL', key) end
end
local time = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[3])
return 'left'
