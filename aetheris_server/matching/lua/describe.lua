-- Look at a queue; writes nothing.
-- ARGV: none.
-- Returns for each sub-queue: name, tasks waiting, score of the oldest one or '', tasks in flight.
local waiting, oldest, flight, names, seen = {}, {}, {}, {}, {}

local function name(sub)
  if not seen[sub] then
    seen[sub] = true
    names[#names + 1] = sub
  end
end

for _, sub in ipairs(redis.call('SMEMBERS', base .. ':subs')) do
  name(sub)
  waiting[sub] = redis.call('ZCARD', sub_key(sub))
  oldest[sub] = redis.call('ZRANGE', sub_key(sub), 0, 0, 'WITHSCORES')[2]
end
for _, packed in ipairs(redis.call('HVALS', base .. ':flight')) do
  local sub = cmsgpack.unpack(packed)[2]
  name(sub)
  flight[sub] = (flight[sub] or 0) + 1
end
local answer = {}
for _, sub in ipairs(names) do
  answer[#answer + 1] = sub
  answer[#answer + 1] = waiting[sub] or 0
  answer[#answer + 1] = oldest[sub] or ''
  answer[#answer + 1] = flight[sub] or 0
end
return answer
