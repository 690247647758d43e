-- Appends one event after the stream's last entry.
-- KEYS: the stream. ARGV: generation, revision, the revision before, token, event, digest, length to keep.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
  return ''
end

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return 'out of place' end
local token = field(last, 't')
if newer(token, ARGV[4]) then return 'fenced ' .. token end
if field(last, 'g') ~= ARGV[1] then return 'out of place' end
local revision = string.match(last[1], '^(%d+)')
if revision == ARGV[3] then
  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[7], ARGV[2] .. '-0',
    'g', ARGV[1], 't', ARGV[4], 'e', ARGV[5], 'd', ARGV[6])
  -- Of a stream whose last entry was deleted, the id cannot be given again.
  if type(added) == 'table' then return 'out of place' end
  return 'appended'
end
if less(revision, ARGV[2]) then return 'out of place' end
local held = redis.call('XRANGE', KEYS[1], ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
if held and field(held, 'e') ~= ARGV[5] then return 'out of place' end
return 'duplicate'
