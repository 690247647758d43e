-- Gives a lease up, if the holder has it; its token stays.
-- KEYS: the lease. ARGV: holder.
local lease = redis.pcall('GET', KEYS[1])
if type(lease) ~= 'string' then return 'free' end
local token, holder = string.match(lease, '^(%d+) %d+ (.*)$')
if token and holder == ARGV[1] then redis.call('SET', KEYS[1], token .. ' 0 ' .. holder) end
return 'released'
