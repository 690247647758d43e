-- Takes a lease that is free or expired, or renews it. The lease never expires as a key: its token must last.
-- KEYS: the lease, `<token> <expires_ms> <holder>`; one that does not read back is free.
-- ARGV: holder, milliseconds, the token that must be surpassed.
local function after(token)
  local digits, carry = {}, 1
  for i = #token, 1, -1 do
    local digit = string.byte(token, i) - 48 + carry
    digits[i], carry = digit % 10, digit > 9 and 1 or 0
  end
  return (carry == 1 and '1' or '') .. table.concat(digits)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token, renew = '0', false
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' then
  local held, expires, holder = string.match(lease, '^(%d+) (%d+) (.*)$')
  -- None lasts longer than a day.
  if readable(held) and tonumber(expires) <= now + 86400000 then
    token = held
    if tonumber(expires) > now then
      if holder ~= ARGV[1] then return false end
      renew = less(ARGV[3], held)
    end
  end
end
if not renew then
  local least = string.format('%.0f', now)
  token = after(token)
  if less(token, least) then token = least end
  if not less(ARGV[3], token) then token = after(ARGV[3]) end
end
redis.call('SET', KEYS[1], string.format('%s %.0f %s', token, now + ARGV[2], ARGV[1]))
return token
