-- Leaves a request for a leader. KEYS: the list. ARGV: the request, the most that may wait, milliseconds after
-- which the list is forgotten if nobody leaves or takes one.
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
