-- The index of a service and the hashes of its versions, as of one moment. One that is no hash is an error among them.
-- KEYS: the index, then the hashes that the index named before.
local hashes = {}
for i, key in ipairs(KEYS) do hashes[i] = redis.pcall('HGETALL', key) end
return hashes
