-- Takes every request that waits. KEYS: the list.
local requests = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return requests
