-- End leases. Those that have ended already are left alone.
-- ARGV: seconds after which postponed tasks come back, how many are done, how many are returned;
--       then the leases done, the leases returned, the leases postponed.
-- Returns the counts of the sub-queues that got tasks back.
local done, returned = tonumber(ARGV[2]), tonumber(ARGV[3])
local touched, seen = {}, {}
for i = 4, #ARGV do
  local position = i - 3
  if position <= done then
    end_lease(ARGV[i])
  elseif position <= done + returned then
    local record = end_lease(ARGV[i])
    if record and put(record) and not seen[record[2]] then
      seen[record[2]] = true
      touched[#touched + 1] = record[2]
    end
  else
    redis.call('ZADD', base .. ':leases', 'XX', exact(time() + tonumber(ARGV[1])), ARGV[i])
  end
end
return counts(touched)
