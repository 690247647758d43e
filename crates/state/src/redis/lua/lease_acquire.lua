-- Takes a lease that is free or expired, or renews it. The lease never expires as a key: its token must last.
-- KEYS: the lease, `<token> <expires_ms> <holder>`; one that does not read back is free. ARGV: holder, milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token, renew = 0, false
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' then
  local held, expires, holder = string.match(lease, '^(%d+) (%d+) (.*)$')
  -- None lasts longer than a day.
  if readable(held) and tonumber(expires) <= now + 86400000 then
    token = tonumber(held)
    if tonumber(expires) > now then
      if holder ~= ARGV[1] then return false end
      renew = true
    end
  end
end
if not renew then token = math.max(token + 1, now) end
redis.call('SET', KEYS[1], string.format('%.0f %.0f %s', token, now + ARGV[2], ARGV[1]))
return string.format('%.0f', token)
