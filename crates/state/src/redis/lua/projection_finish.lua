-- Declares a rebuild complete, if no other one was begun since.
-- KEYS: the status. ARGV: token, the rebuild's name, epoch, revision, digest, level.
local held = redis.call('HMGET', KEYS[1], 'token', 'rebuild')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 'fenced ' .. (readable(held[1]) or ARGV[1]) end
redis.call('HDEL', KEYS[1], 'rebuild')
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'epoch', ARGV[3], 'revision', ARGV[4], 'digest', ARGV[5], 'level', ARGV[6])
return 'finished'
