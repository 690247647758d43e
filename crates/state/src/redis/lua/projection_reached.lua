-- Moves the projection's position on.
-- KEYS: the status. ARGV: token, epoch, revision, the revision to move on from, digest, level.
-- The projection may have been lost while the events were written: then its position must not come back.
local held = redis.call('HMGET', KEYS[1], 'token', 'epoch', 'revision')
if newer(held[1], ARGV[1]) then return 'fenced ' .. held[1] end
if held[2] ~= ARGV[2] or not held[3] then return 'lost' end
if held[3] == ARGV[4] then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'revision', ARGV[3], 'digest', ARGV[5], 'level', ARGV[6])
elseif less(held[3], ARGV[4]) then
  return 'lost'
end
return 'reached'
