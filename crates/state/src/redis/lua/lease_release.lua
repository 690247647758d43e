-- Gives a lease up, if the holder has it; its token stays.
-- KEYS: the lease. ARGV: holder.
local lease = redis.call('GET', KEYS[1])
if not lease then return 'free' end
local token, holder = string.match(lease, '^(%d+) %d+ (.*)$')
if not token then return redis.error_reply('CORRUPT it is no lease') end
if holder == ARGV[1] then redis.call('SET', KEYS[1], token .. ' 0 ' .. holder) end
return 'released'
