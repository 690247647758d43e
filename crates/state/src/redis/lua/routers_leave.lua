-- Takes a router off the list, and remembers that it left until that expires.
-- KEYS: the list, those that left. ARGV: router, milliseconds.
local time = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 'left'
