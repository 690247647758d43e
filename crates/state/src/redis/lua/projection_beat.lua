-- Leaves the publisher's sign of life.
-- KEYS: the status. ARGV: token, the beat.
local token = redis.call('HGET', KEYS[1], 'token')
if newer(token, ARGV[1]) then return 'fenced ' .. token end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'beat', ARGV[2])
return 'left'
