-- Makes all changes of some events to one tenant.
-- KEYS: the tenant's metadata, services, schemas. ARGV: token, revision of the last event, epoch; then the changes, each
-- one `put` with a number of fields and those, `remove`, or `set`/`unset` with the number of a key and a field.
local held = redis.call('HMGET', KEYS[1], '#at', 'status')
-- The log declares a tenant first, so what comes without its status was removed since.
local at, declared = held[1], held[2]
if at then
  local token, revision, epoch = string.match(at, '^(%d+) (%d+) (%d+)$')
  if not readable(token) then return redis.error_reply('CORRUPT `#at` does not read back') end
  if newer(token, ARGV[1]) then return 'fenced ' .. token end
  if epoch == ARGV[3] then
    if revision == ARGV[2] then return 'held' end
    if less(ARGV[2], revision) then return redis.error_reply('CORRUPT `#at` is ahead of the projection') end
  end
end
local i = 4
while i <= #ARGV do
  local change = ARGV[i]
  if change == 'remove' then
    redis.call('DEL', unpack(KEYS))
    declared = false
    i = i + 1
  elseif change == 'put' then
    local last = i + 1 + 2 * tonumber(ARGV[i + 1])
    -- Holds are facts of their own, beside the attributes that are replaced.
    local holds, fields = {}, redis.call('HGETALL', KEYS[1])
    for f = 1, #fields, 2 do
      if string.sub(fields[f], 1, 5) == 'hold.' then
        holds[#holds + 1] = fields[f]
        holds[#holds + 1] = fields[f + 1]
      end
    end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], unpack(ARGV, i + 2, last))
    declared = true
    if #holds > 0 then redis.call('HSET', KEYS[1], unpack(holds)) end
    i = last + 1
  elseif change == 'set' then
    if declared then redis.call('HSET', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3]) end
    i = i + 4
  else
    redis.call('HDEL', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2])
    i = i + 3
  end
end
-- A removed tenant leaves nothing behind, not even the position of its last write.
if declared then redis.call('HSET', KEYS[1], '#at', ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]) end
return 'changed'
