-- Return tasks whose lease expired, open sticky tasks whose preference ended to all pollers, and report.
-- ARGV: how many of either at most, of each sub-queue.
-- Returns how many came back, how many are in flight, and the counts of all sub-queues.
local now = exact(time())
local came_back, in_flight = 0, 0

local function due(key)
  return redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ARGV[1])
end

for _, sub in ipairs(redis.call('SMEMBERS', base .. ':subs')) do
  for _, task in ipairs(due(lease_key(sub))) do
    open(sub, task)
    redis.call('ZREM', lease_key(sub), task)
    came_back = came_back + 1
  end
  if is_sticky(sub) then
    for _, task in ipairs(due(sub_key(sub))) do
      open(sub, task)
      redis.call('ZREM', sub_key(sub), task)
    end
  end
  in_flight = in_flight + redis.call('ZCARD', lease_key(sub))
end
return {came_back, in_flight, counts(redis.call('SMEMBERS', base .. ':subs'))}
