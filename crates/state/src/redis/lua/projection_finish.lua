-- Declares a rebuild complete, if no other one was begun since.
-- KEYS: the status. ARGV: token, the rebuild's name, generation, revision, digest.
local held = redis.call('HMGET', KEYS[1], 'token', 'rebuild')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 'fenced ' .. (held[1] or '0') end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'generation', ARGV[3], 'revision', ARGV[4], 'digest', ARGV[5])
return 'finished'
