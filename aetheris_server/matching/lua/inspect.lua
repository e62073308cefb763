-- Return tasks whose lease expired, open sticky tasks whose preference ended to all pollers, and report.
-- ARGV: how many of either at most.
-- Returns how many came back, how many are in flight, and the counts of all sub-queues.
local now = exact(time())
local expired = redis.call('ZRANGEBYSCORE', base .. ':leases', '-inf', now, 'LIMIT', 0, ARGV[1])
local came_back = 0
for _, lease in ipairs(expired) do
  local record = end_lease(lease)
  if record and put(record) then
    came_back = came_back + 1
  end
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', base .. ':sticky', '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local record = take(key)
  if record then
    record[2] = record[3]
    put(record)
  else
    redis.call('ZREM', base .. ':sticky', key)
  end
end
local in_flight = redis.call('HLEN', base .. ':flight')
return {came_back, in_flight, counts(redis.call('SMEMBERS', base .. ':subs'))}
