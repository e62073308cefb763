-- Look at a queue; writes nothing.
-- ARGV: none.
-- Returns for each sub-queue: name, tasks waiting, score of the oldest one or '', tasks in flight.
local answer = {}
for _, sub in ipairs(redis.call('SMEMBERS', base .. ':subs')) do
  local head = redis.call('ZRANGE', sub_key(sub), 0, 0)[1]
  answer[#answer + 1] = sub
  answer[#answer + 1] = redis.call('ZCARD', sub_key(sub))
  answer[#answer + 1] = head and score_of(head) or ''
  answer[#answer + 1] = redis.call('ZCARD', lease_key(sub))
end
return answer
