-- Puts a router on the list until its announcement expires, and takes back a goodbye of the same run.
-- KEYS: the list, those that left. ARGV: router, milliseconds, its run among those that left.
for _, key in ipairs(KEYS) do
  if redis.call('TYPE', key).ok ~= 'zset' then redis.call('DEL', key) end
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[3])
return 'announced'
