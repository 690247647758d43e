-- Appends events that follow one another after the stream's last entry; those that it holds are passed over.
-- KEYS: the stream. ARGV: generation, token, length to keep, the revision before the first; then of each event its
-- revision, the event and the digest.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
  return ''
end

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return 'out of place' end
local token = field(last, 't')
if newer(token, ARGV[2]) then return 'fenced ' .. token end
if field(last, 'g') ~= ARGV[1] then return 'out of place' end
local revision = string.match(last[1], '^(%d+)')
if less(revision, ARGV[4]) then return 'out of place' end
local before, verdict = ARGV[4], 'duplicate'
for i = 5, #ARGV, 3 do
  if revision == before then
    local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], ARGV[i] .. '-0',
      'g', ARGV[1], 't', ARGV[2], 'e', ARGV[i + 1], 'd', ARGV[i + 2])
    -- Of a stream whose last entry was deleted, the id cannot be given again.
    if type(added) == 'table' then return 'out of place' end
    revision, verdict = ARGV[i], 'appended'
  else
    local held = redis.call('XRANGE', KEYS[1], ARGV[i] .. '-0', ARGV[i] .. '-0')[1]
    if held and field(held, 'e') ~= ARGV[i + 1] then return 'out of place' end
  end
  before = ARGV[i]
end
return verdict
