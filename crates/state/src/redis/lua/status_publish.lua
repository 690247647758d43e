-- Replaces a leader's status unless a newer leader has told its own.
-- KEYS: the status, `<token> <status>`. ARGV: token, status, milliseconds.
-- Returns the newer token, or nothing.
local told = redis.pcall('GET', KEYS[1])
if type(told) == 'string' then
  local token = string.match(told, '^(%d+) ')
  if newer(token, ARGV[1]) then return token end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return false
