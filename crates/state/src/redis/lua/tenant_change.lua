-- Makes all changes of one event to one tenant.
-- KEYS: the tenant's metadata, services, schemas. ARGV: token, revision, generation; then the changes, each one
-- `put` with a number of fields and those, `remove`, or `set`/`unset` with the number of a key and a field.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
local at = redis.call('HGET', KEYS[1], '#at')
if at then
  local token, revision, generation = string.match(at, '^(%d+) (%d+) (.*)$')
  if not token then return redis.error_reply('CORRUPT `#at` does not read back') end
  if less(ARGV[1], token) then return 'fenced ' .. token end
  if generation == ARGV[3] and not less(revision, ARGV[2]) then return 'held' end
end
local i = 4
while i <= #ARGV do
  local change = ARGV[i]
  if change == 'remove' then
    redis.call('DEL', unpack(KEYS))
    i = i + 1
  elseif change == 'put' then
    local last = i + 1 + 2 * tonumber(ARGV[i + 1])
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], unpack(ARGV, i + 2, last))
    i = last + 1
  elseif change == 'set' then
    redis.call('HSET', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3])
    i = i + 4
  else
    redis.call('HDEL', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2])
    i = i + 3
  end
end
-- A removed tenant leaves nothing behind, not even the position of its last write.
if redis.call('EXISTS', unpack(KEYS)) > 0 then
  redis.call('HSET', KEYS[1], '#at', ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
end
return 'changed'
