-- Shared by all scripts: it is put in front of each.
--
-- Keys of a queue, all of which carry the queue's hash tag in their base name:
--   <base>:subs         set     names of the sub-queues that may have tasks
--   <base>:sub:<s>      zset    the tasks that wait in the sub-queue named s
--   <base>:leases:<s>   zset    the tasks of it that a poller has, by the time when the lease expires
-- Each key is whole by itself: Redis may lose any of them and the others still mean what they say.
--
-- A task is its score, a space, and its reference, always the same bytes for the same task. The name of a
-- sub-queue is its sticky queue, a space, and its capabilities; that of the shared one begins with the space.
-- Tasks of a shared sub-queue are ordered by their scores, those of a sticky one by the end of the preference.
--
-- A script writes where a task goes before it removes it from where it was: Redis undoes nothing if a
-- script fails half-way, as it does when the memory is full.

local base = KEYS[1]

local function sub_key(sub)
  return base .. ':sub:' .. sub
end

local function lease_key(sub)
  return base .. ':leases:' .. sub
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

local function score_of(task)
  return string.sub(task, 1, string.find(task, ' ', 1, true) - 1)
end

local function is_sticky(sub)
  return string.sub(sub, 1, 1) ~= ' '
end

local function shared_of(sub)
  return string.sub(sub, (string.find(sub, ' ', 1, true)))
end

-- Let a task wait for any poller; no change if it does already.
local function open(sub, task)
  local shared = shared_of(sub)
  redis.call('SADD', base .. ':subs', shared)
  redis.call('ZADD', sub_key(shared), 'NX', score_of(task), task)
  return shared
end

-- Names of sub-queues, each followed by how many tasks wait in it.
local function counts(subs)
  local answer = {}
  for _, sub in ipairs(subs) do
    local count = redis.call('ZCARD', sub_key(sub))
    if count == 0 and redis.call('EXISTS', lease_key(sub)) == 0 then
      redis.call('SREM', base .. ':subs', sub)
    end
    answer[#answer + 1] = sub
    answer[#answer + 1] = count
  end
  return answer
end
