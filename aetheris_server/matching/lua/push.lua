-- Queue tasks; one that waits already is left as it is.
-- ARGV: for each task: sub-queue, seconds of sticky preference left, 1 if it was offered before, the task.
-- Returns how many of those offered before did not wait, and the counts of the sub-queues touched.
local now = time()
local touched, entries, repairs = {}, {}, {0}

local function entries_of(sub)
  if not entries[sub] then
    entries[sub] = {['0'] = {}, ['1'] = {}}
    touched[#touched + 1] = sub
  end
  return entries[sub]
end

for i = 1, #ARGV, 4 do
  local sub, task = ARGV[i], ARGV[i + 3]
  local score = score_of(task)
  if is_sticky(sub) then
    if redis.call('ZSCORE', sub_key(shared_of(sub)), task) then
      sub = shared_of(sub)
    else
      score = exact(now + tonumber(ARGV[i + 1]))
    end
  end
  local list = entries_of(sub)[ARGV[i + 2]]
  list[#list + 1] = score
  list[#list + 1] = task
end
for _, sub in ipairs(touched) do
  redis.call('SADD', base .. ':subs', sub)
  for is_repeated, list in pairs(entries[sub]) do
    if #list > 0 then
      local added = redis.call('ZADD', sub_key(sub), 'NX', unpack(list))
      repairs[1] = repairs[1] + added * tonumber(is_repeated)
    end
  end
end
return {repairs[1], counts(touched)}
