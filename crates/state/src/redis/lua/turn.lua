-- The next turn, starting over at 1 after the last one.
-- KEYS: the counter. ARGV: the last turn.
local turn = redis.call('INCR', KEYS[1])
if turn > tonumber(ARGV[1]) or turn < 1 then
  turn = 1
  redis.call('SET', KEYS[1], '1')
end
return turn
