-- Lease the tasks with the lowest scores of some sub-queues.
-- ARGV: how many at most, seconds of the lease, a name for the leases, the sub-queues.
-- Returns {lease, reference, ...} in the order of scores, and the counts left in the sub-queues.
local expiry = exact(time() + tonumber(ARGV[2]))
local subs, heads = {}, {}

local function look(sub)
  local head = redis.call('ZRANGE', sub_key(sub), 0, 0, 'WITHSCORES')
  heads[sub] = head[1] and {head[1], tonumber(head[2])} or nil
end

for i = 4, #ARGV do
  subs[#subs + 1] = ARGV[i]
  look(ARGV[i])
end

local answer = {}
for i = 1, tonumber(ARGV[1]) do
  local best
  for _, sub in ipairs(subs) do
    if heads[sub] and (not best or heads[sub][2] < heads[best][2]) then
      best = sub
    end
  end
  if not best then
    break
  end
  local key = heads[best][1]
  local record = take(key)
  if record then
    local lease = ARGV[3] .. ':' .. i
    redis.call('HSET', base .. ':flight', lease, cmsgpack.pack(record))
    redis.call('ZADD', base .. ':leases', expiry, lease)
    answer[#answer + 1] = lease
    answer[#answer + 1] = record[6]
  else
    redis.call('ZREM', sub_key(best), key)
  end
  look(best)
end
return {answer, counts(subs)}
