-- emp_trio_reap: jobs whose lease ran out, and delayed jobs that are due. Any machine may call it at any time.
--   ARGV  1 entries to handle of each kind, at most   2 crashes after which a job fails for good
--   reply {ms until there is something to do again or -1, requeued ids, {failed id, reason} each, due ids,
--         {id, error} of each that could not be handled}
-- A lease that ran out before the attempt began to run (its claim's reply was lost) is no crash and uses no attempt. But
-- a job to which that happens again and again may be what ends its worker: it fails after UNSTARTED times as many.
local UNSTARTED = 3

local function reap_lease(id, max_crashes, now, requeued, failed)
  local f = job_table(id)
  local running = f.status == 'assigned' or f.status == 'in_progress'
  if running and given(f.lease_token) and f.lease_worker == f.worker_id then
    local worker = f.worker_id
    local used = f.status == 'in_progress' and 1 or 0
    local crashes, count = (number(f.crashes) or 0) + used, (number(f.retry_count) or 0) + used
    local unstarted = (number(f.unstarted) or 0) + 1 - used
    redis.call('HSET', 'job:' .. id, 'crashes', crashes, 'unstarted', unstarted)
    local failure = {type = 'system_error', reason = 'internal_error',
      error = 'worker ' .. worker .. ' stopped renewing its lease on this job (crash ' .. crashes .. ')'}
    local never = used == 0 and unstarted >= max_crashes * UNSTARTED
    if never then
      failure.error = 'claimed ' .. unstarted .. ' times and never begun, last by worker ' .. worker ..
        ': the job may end the process that takes it'
    end
    if never or (used == 1 and (crashes >= max_crashes or count >= attempts_of(f))) then
      fail_for_good(id, f, worker, '', failure, count, now)
      failed[#failed + 1] = {id, failure.error}
    else
      if used == 1 then
        attest_failure(id, f, worker, '', failure, count, false, now)
      end
      redis.call('HSET', 'job:' .. id, 'status', 'pending', 'worker_id', '', 'assigned_at', '', 'lease_token', '',
        'retry_count', count, 'last_failed_worker', worker, 'failed_at', now.iso, 'error', failure.error)
      requeue(id, 0, now)
      requeued[#requeued + 1] = id
    end
    redis.pcall('HDEL', 'jobs:active:' .. worker, id)
  elseif given(f.lease_token) then
    -- somebody who knows of no leases put the job back, ended it or took it
    redis.pcall('HDEL', 'jobs:active:' .. f.lease_worker, id)
  end
  redis.call('ZREM', LEASES, id)
end

redis.register_function{function_name = 'emp_trio_reap', flags = {'allow-oom'}, callback = function(_, argv)
  local now, most, max_crashes = clock(), tonumber(argv[1]), tonumber(argv[2])
  local requeued, failed, due, broken = {}, {}, {}, {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', int(now.ms), 'LIMIT', 0, most)) do
    local ok, why = pcall(reap_lease, id, max_crashes, now, requeued, failed)
    if not ok then
      -- One job with a broken key must not keep the others from being reaped; it is looked at again later.
      redis.call('ZADD', LEASES, int(now.ms + BROKEN_PAUSE), id)
      broken[#broken + 1] = {id, type(why) == 'table' and why.err or tostring(why)}
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', int(now.ms), 'LIMIT', 0, most)) do
    redis.call('ZREM', DELAYED, id)
    if fields('job:' .. id, 'status')[1] == 'pending' then
      requeue(id, 0, now)
      due[#due + 1] = id
    end
  end
  local next_ms = -1
  for _, set in ipairs({LEASES, DELAYED}) do
    local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if first[2] then
      local wait = math.max(0, tonumber(first[2]) - now.ms)
      if next_ms < 0 or wait < next_ms then next_ms = wait end
    end
  end
  return {next_ms, requeued, failed, due, broken}
end}
