-- What a client does to a job.

-- emp_trio_submit: a new job (queue protocol 1.3, 2.1).   ARGV 1 job id  2 nonce  3 message for job_submitted
--   4.. field, value, ...   reply 'submitted', or 'exists' when another submit made a job of this id
--   errors: an id that can't be used, a jobs:pending that is no sorted set
redis.register_function('emp_trio_submit', function(_, argv)
  local id = argv[1]
  local key, bad = 'job:' .. id, bad_id(id)
  if bad then return redis.error_reply('BADID ' .. bad) end
  if not is_zset(PENDING) then return not_zset(PENDING) end
  if redis.call('EXISTS', key) == 1 then
    return fields(key, 'submit_token')[1] == argv[2] and 'submitted' or 'exists'
  end
  redis.call('HSET', key, 'id', id, 'status', 'pending', 'submit_token', argv[2], unpack(argv, 4))
  local given_fields = {}  -- what record would read back
  for i = 4, #argv, 2 do given_fields[argv[i]] = #argv[i + 1] <= LONGEST and argv[i + 1] or nil end
  redis.call('ZADD', PENDING, score(given_fields), id)
  redis.call('PUBLISH', 'job_submitted', argv[3])
  return 'submitted'
end)

-- emp_trio_cancel: ends a job wherever it is, as the API's cancel does (queue protocol 4.8), and says so once.
--   ARGV 1 job id  2 reason   reply {'cancelled', status before} | {'settled', status} | {'missing', ''}; a job that
--   was cancelled before is left as it is
redis.register_function{function_name = 'emp_trio_cancel', flags = {'allow-oom'}, callback = function(_, argv)
  local id, now = argv[1], clock()
  local f = record('job:' .. id, ENDING)
  if not is_job(f) then return {'missing', ''} end
  local status = given(f.status) or 'pending'
  if SETTLED[status] then
    local cancelled = status ~= 'completed' and given(f.cancelled_at)
    return {cancelled and 'cancelled' or 'settled', status}
  end
  local worker = given(f.worker_id) or ''
  redis.pcall('ZREM', PENDING, id)
  redis.pcall('ZREM', DELAYED, id)
  drop_lease(id, f.lease_worker)
  redis.call('HSET', 'job:' .. id, 'status', 'failed', 'failed_at', now.iso, 'cancelled_at', now.iso, 'error', argv[2],
    'lease_token', '')
  if worker ~= '' then
    drop_lease(id, worker)
    publish('cancel_job', {job_id = id, worker_id = worker, reason = argv[2], timestamp = now.ms})
  end
  redis.pcall('HSET', 'jobs:failed', id, json({error = argv[2], failed_at = now.iso, cancelled = true}))
  redis.pcall('EXPIRE', 'jobs:failed', FAILED_TTL)
  publish('job_failed', {job_id = id, worker_id = worker, status = 'failed', error = argv[2], failed_at = now.iso,
    retry_count = count_of(f.retry_count), can_retry = false, cancelled = true, timestamp = now.ms,
    workflow_id = given(f.workflow_id)})
  return {'cancelled', status}
end}

-- emp_trio_retry: a failed job gets a new life, with all its attempts.   ARGV 1 job id  2 nonce
--   reply {'queued', status before} | {'refused', status} | {'missing', ''}
redis.register_function('emp_trio_retry', function(_, argv)
  local id, now = argv[1], clock()
  local f = record('job:' .. id, ENDING)
  if not is_job(f) then return {'missing', ''} end
  local status = given(f.status) or 'pending'
  if f.retry_token == argv[2] then return {'queued', status} end
  if status ~= 'failed' then return {'refused', status} end
  if not can_requeue() then return not_zset(PENDING) end
  redis.call('HSET', 'job:' .. id, 'status', 'pending', 'worker_id', '', 'assigned_at', '', 'retry_count', '0',
    'crashes', '0', 'unstarted', '0', 'lease_token', '', 'retry_token', argv[2])
  redis.call('HDEL', 'job:' .. id, 'error', 'failure_type', 'failure_reason', 'failed_at', 'cancelled_at',
    'started_at', 'checkpoint', 'charged')
  redis.pcall('HDEL', 'jobs:failed', id)
  drop_lease(id, f.lease_worker)  -- the API's cancel leaves it
  redis.pcall('ZREM', DELAYED, id)
  requeue(id, 0, now)
  return {'queued', status}
end)
