-- Takes every request that waits. What is no list is told once, and no longer in the way.
-- KEYS: the list.
local requests = redis.pcall('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return requests
