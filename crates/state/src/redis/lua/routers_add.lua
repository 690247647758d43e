-- Puts a router on the list until its announcement expires, and forgets that it ever left.
-- KEYS: the list, those that left. ARGV: router, milliseconds.
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 'announced'
