-- Lease the tasks with the lowest scores of some sub-queues.
-- ARGV: how many at most, seconds of the lease, the sub-queues.
-- Returns {sub-queue, task, ...} in the order of scores, and the counts left in the sub-queues.
local limit, expiry = tonumber(ARGV[1]), exact(time() + tonumber(ARGV[2]))
local subs, waiting, taken, moved = {}, {}, {}, {}

for i = 3, #ARGV do
  local sub = ARGV[i]
  subs[#subs + 1] = sub
  waiting[sub] = redis.call('ZRANGE', sub_key(sub), 0, limit - 1)
  taken[sub] = 0
  moved[sub] = {}
end

local function head_score(sub)
  local task = waiting[sub][taken[sub] + 1]
  return task and tonumber(score_of(task))
end

local answer = {}
for _ = 1, limit do
  local best, best_score
  for _, sub in ipairs(subs) do
    local score = head_score(sub)
    if score and (not best or score < best_score) then
      best, best_score = sub, score
    end
  end
  if not best then
    break
  end
  taken[best] = taken[best] + 1
  local task = waiting[best][taken[best]]
  local entries = moved[best]
  entries[#entries + 1] = expiry
  entries[#entries + 1] = task
  answer[#answer + 1] = best
  answer[#answer + 1] = task
end
for _, sub in ipairs(subs) do
  if taken[sub] > 0 then
    redis.call('ZADD', lease_key(sub), unpack(moved[sub]))
    redis.call('ZREM', sub_key(sub), unpack(waiting[sub], 1, taken[sub]))
  end
end
return {answer, counts(subs)}
