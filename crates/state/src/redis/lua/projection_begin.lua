-- Withdraws the projection's status while it is rebuilt; the token stays, so that old leaders are refused.
-- KEYS: the status. ARGV: token, a name for the rebuild.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local token = redis.call('HGET', KEYS[1], 'token')
if token and less(ARGV[1], token) then return 'fenced ' .. token end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'rebuild', ARGV[2])
return 'begun'
