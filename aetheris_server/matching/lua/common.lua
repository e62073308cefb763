-- Shared by all scripts: it is put in front of each.
--
-- Keys of a queue, all of which carry the queue's hash tag in their base name:
--   <base>:tasks        hash    task key -> record, of the waiting tasks
--   <base>:sub:<s>      zset    task key by score: the sub-queue named s
--   <base>:subs         set     names of the sub-queues that may have tasks
--   <base>:sticky       zset    task key by the time when its sticky preference ends
--   <base>:flight       hash    lease -> record, of the tasks handed to a poller
--   <base>:leases       zset    lease by the time when it expires
-- A record is {task key, sub-queue, shared sub-queue, score, end of the sticky preference, reference}.

local base = KEYS[1]

local function sub_key(sub)
  return base .. ':sub:' .. sub
end

-- Redis' own clock, so that hosts need not agree on the time.
local function time()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000
end

-- Text that gives the same number back; Lua's own rounds to 14 digits.
local function exact(number)
  return string.format('%.17g', number)
end

-- Queue a record; false if the task is queued already.
local function put(record)
  local key, sub, shared, score, until_time = record[1], record[2], record[3], record[4], record[5]
  if redis.call('HSETNX', base .. ':tasks', key, cmsgpack.pack(record)) == 0 then
    return false
  end
  redis.call('ZADD', sub_key(sub), score, key)
  redis.call('SADD', base .. ':subs', sub)
  if sub ~= shared then
    redis.call('ZADD', base .. ':sticky', until_time, key)
  end
  return true
end

-- Take a waiting task out of the keys that `put` writes; nil if it does not wait.
local function take(key)
  local packed = redis.call('HGET', base .. ':tasks', key)
  if not packed then
    return nil
  end
  local record = cmsgpack.unpack(packed)
  redis.call('HDEL', base .. ':tasks', key)
  redis.call('ZREM', sub_key(record[2]), key)
  if record[2] ~= record[3] then
    redis.call('ZREM', base .. ':sticky', key)
  end
  return record
end

-- End a lease and return its record; nil if it has ended already.
local function end_lease(lease)
  redis.call('ZREM', base .. ':leases', lease)
  local packed = redis.call('HGET', base .. ':flight', lease)
  if not packed then
    return nil
  end
  redis.call('HDEL', base .. ':flight', lease)
  return cmsgpack.unpack(packed)
end

-- Names of sub-queues, each followed by how many tasks it has.
local function counts(subs)
  local answer = {}
  for _, sub in ipairs(subs) do
    local count = redis.call('ZCARD', sub_key(sub))
    if count == 0 then
      redis.call('SREM', base .. ':subs', sub)
    end
    answer[#answer + 1] = sub
    answer[#answer + 1] = count
  end
  return answer
end
