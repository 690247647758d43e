-- Withdraws the projection's status while it is rebuilt; the token stays, so that old leaders are refused, as does the
-- publisher's sign of life.
-- KEYS: the status. ARGV: token, a name for the rebuild.
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local held = redis.call('HMGET', KEYS[1], 'token', 'beat')
if newer(held[1], ARGV[1]) then return 'fenced ' .. held[1] end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'rebuild', ARGV[2])
if held[2] then redis.call('HSET', KEYS[1], 'beat', held[2]) end
return 'begun'
