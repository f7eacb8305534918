-- emp_trio_claim: up to one job for each free slot, best first.
--   ARGV  1 capabilities JSON of the worker type (queue protocol 4.3, without worker_id)   2 machine id
--         3 lease in ms   4 rank to begin at   5 ids to look at, at most
--         6 sum of 1 when this very call was sent before, 2 when nothing is to be published of jobs whose submitter may
--           not have announced them yet: the caller does that by emp_trio_begin (emp_trio_submit announces by itself)
--         7.. worker id, nonce, worker id, nonce, ...
--   reply {next, ms, jobs, dropped}
--         next     rank to go on at when the budget ran out before the slots were filled, else -1
--         jobs     {worker id, lease token, job id, {field, value, ...} as they were before the claim} each; in a
--                  repeated call as they are now
--         dropped  {job id, reason} of what was taken out of jobs:pending because nobody can ever run it
-- Writes what findMatchingJob writes (queue protocol 3.3), plus a lease. Payloads are read for claimed jobs only.

local function take(id, worker, machine, nonce, lease, quiet, now)
  redis.call('ZREM', PENDING, id)
  local flat = redis.call('HGETALL', 'job:' .. id)
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  local attempt = math.floor(number(job.attempt) or 0) + 1
  local token = nonce .. '/' .. attempt
  if given(job.lease_token) then drop_lease(id, job.lease_worker) end  -- somebody put a leased job back
  redis.call('HSET', 'job:' .. id, 'status', 'assigned', 'worker_id', worker, 'assigned_at', now.lua,
    'lease_token', token, 'lease_worker', worker, 'attempt', attempt)
  redis.call('ZADD', LEASES, int(now.ms + lease), id)
  -- The lease stands; a key of a wrong type among the fleet's other ones must not stop the claim half way.
  redis.pcall('HSET', 'jobs:active:' .. worker, id, cjson.encode(job))
  redis.pcall('XADD', 'progress:' .. id, '*', 'job_id', id, 'worker_id', worker, 'status', 'assigned', 'progress', '0',
    'message', 'Job assigned to worker', 'assigned_at', now.lua)
  set_slot_state(worker, 'busy', id, now)
  if not (quiet and not given(job.submit_token)) then say_claimed(id, job, worker, machine, now.lua, now) end
  return {worker, token, id, flat}
end

-- A claim whose reply was lost: what this nonce was given is in jobs:active of the slot. The caller counts the lease
-- from this call on.
local function taken_before(worker, nonce, lease, now)
  for _, id in ipairs(active_of(worker)) do
    local f = fields('job:' .. id, 'lease_token', 'lease_worker', 'status', 'worker_id')
    if f[1] and string.sub(f[1], 1, #nonce + 1) == nonce .. '/' and f[2] == worker and f[4] == worker and
      f[3] == 'assigned' then
      redis.call('ZADD', LEASES, int(now.ms + lease), id)
      return {worker, f[1], id, redis.call('HGETALL', 'job:' .. id)}
    end
  end
  return nil
end

local SETTLED = {completed = true, failed = true, cancelled = true}

-- Looks at one pending id: 'match', 'no', 'gone' (with the reason why it was taken out).
local function inspect(id, worker, served, now)
  local f = redis.pcall('HMGET', 'job:' .. id, 'id', 'service_required', 'requirements', 'workflow_id', 'customer_id',
    'status', 'lease_worker', 'worker_id')
  if f.err then
    redis.call('ZREM', PENDING, id)
    return 'gone', 'job:' .. id .. ' is not a hash'
  end
  if not f[1] and not f[2] and not f[6] then
    redis.call('ZREM', PENDING, id)
    return 'gone', 'there is no hash for it'
  end
  if SETTLED[f[6]] then
    redis.call('ZREM', PENDING, id)
    return 'gone', 'it is ' .. f[6] .. ' already'
  end
  if (f[6] == 'assigned' or f[6] == 'in_progress') and given(f[7]) and f[7] == f[8] then
    local ends = redis.call('ZSCORE', LEASES, id)
    if ends and tonumber(ends) > now.ms then
      redis.call('ZREM', PENDING, id)
      return 'gone', 'it is running under a lease'
    end
  end
  local verdict, why = verdict_of({service = f[2], requirements = f[3] or '', workflow = f[4] or '',
    customer = f[5] or ''}, worker, served)
  if verdict == 'poison' then
    redis.call('ZREM', PENDING, id)
    local job = job_table(id)
    fail_for_good(id, job, '', '', {type = 'validation_error', reason = 'invalid_payload',
      error = 'invalid_job: ' .. why}, number(job.retry_count) or 0, now)
    return 'gone', 'invalid_job: ' .. why
  end
  return verdict
end

redis.register_function('emp_trio_claim', function(_, argv)
  local worker = cjson.decode(argv[1])
  local served = served_types(worker)
  local machine, lease = argv[2], tonumber(argv[3])
  local rank, budget, how = tonumber(argv[4]), tonumber(argv[5]), tonumber(argv[6])
  local repeated, quiet = how % 2 == 1, how >= 2
  local now, jobs, dropped = clock(), {}, {}
  local slot, last = 7, #argv
  local function skip_answered()
    while repeated and slot <= last do
      local before = taken_before(argv[slot], argv[slot + 1], lease, now)
      if not before then return end
      jobs[#jobs + 1] = before
      slot = slot + 2
    end
  end
  skip_answered()
  local page = math.min(128, math.max(16, last - slot + 2))
  while slot <= last and budget > 0 do
    local ids = redis.call('ZREVRANGE', PENDING, rank, rank + math.min(page, budget) - 1)
    if #ids == 0 then
      rank = -1
      break
    end
    for _, id in ipairs(ids) do
      if slot > last then break end
      budget = budget - 1
      local verdict, why = inspect(id, worker, served, now)
      if verdict == 'match' then
        jobs[#jobs + 1] = take(id, argv[slot], machine, argv[slot + 1], lease, quiet, now)
        slot = slot + 2
        skip_answered()
      elseif verdict == 'gone' then
        dropped[#dropped + 1] = {id, why}
      else
        rank = rank + 1
      end
    end
  end
  return {slot <= last and rank or -1, now.ms, jobs, dropped}
end)
