-- Stands before scripts that fence. Revisions and tokens are compared as decimal texts: Lua numbers are exact to 2^53 only.
local function less(a, b) return #a < #b or (#a == #b and a < b) end
-- The token, unless it is no number that a leader can be given: such a one fences nobody.
local function readable(token)
  return token and #token <= 18 and (string.match(token, '^[1-9]%d*$') or (token == '0' and token)) or nil
end
-- Whether the token that is held is greater than mine.
local function newer(held, mine) return readable(held) and less(mine, held) end
