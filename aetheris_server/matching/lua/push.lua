-- Queue tasks; one that waits already is left as it is.
-- ARGV: for each task: key, sub-queue, shared sub-queue, score, seconds of sticky preference left, reference.
-- Returns the counts of the sub-queues touched.
local now = time()
local touched, seen = {}, {}
for i = 1, #ARGV, 6 do
  local sub = ARGV[i + 1]
  put({ARGV[i], sub, ARGV[i + 2], ARGV[i + 3], exact(now + tonumber(ARGV[i + 4])), ARGV[i + 5]})
  if not seen[sub] then
    seen[sub] = true
    touched[#touched + 1] = sub
  end
end
return counts(touched)
