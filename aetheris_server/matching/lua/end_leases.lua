-- End leases. Those that have ended already are left alone. What comes back is open to all pollers.
-- ARGV: seconds after which postponed tasks come back, how many are done, how many are returned;
--       then sub-queue and task of the leases done, of those returned, of those postponed.
-- Returns the counts of the sub-queues touched.
local done, returned = tonumber(ARGV[2]), tonumber(ARGV[3])
local later = exact(time() + tonumber(ARGV[1]))
local touched, seen = {}, {}

local function touch(sub)
  if not seen[sub] then
    seen[sub] = true
    touched[#touched + 1] = sub
  end
end

for i = 4, #ARGV, 2 do
  local position, sub, task = (i - 2) / 2, ARGV[i], ARGV[i + 1]
  touch(sub)
  if position <= done then
    redis.call('ZREM', lease_key(sub), task)
  elseif position > done + returned then
    redis.call('ZADD', lease_key(sub), 'XX', later, task)
  elseif redis.call('ZSCORE', lease_key(sub), task) then
    touch(open(sub, task))
    redis.call('ZREM', lease_key(sub), task)
  end
end
return counts(touched)
