-- The decision in Redis: the tenant's version, the version's instances, a turn, a count of use.
-- ARGV: tenant, service, strategy. Keys are built in the script, so it needs a single Redis.
local version = redis.call('HGET', 'tenant:' .. ARGV[1] .. ':services', ARGV[2])
if not version then
    return redis.error_reply('service version not found for tenant')
end
local instances_key = 'service:' .. ARGV[2] .. ':version:' .. version .. ':instances'
local instances = redis.call('SMEMBERS', instances_key)
if #instances == 0 then
    return redis.error_reply('no instances available')
end
local selected
if ARGV[3] == 'random' then
    selected = instances[math.random(1, #instances)]
else
    local counter = redis.call('INCR', instances_key .. ':counter')
    selected = instances[((counter - 1) % #instances) + 1]
end
local usage_key = 'instance:' .. selected .. ':usage'
redis.call('INCR', usage_key)
redis.call('EXPIRE', usage_key, 300)
return { selected, version, redis.call('TIME')[1] }
