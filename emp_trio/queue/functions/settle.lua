-- emp_trio_settle: the one step that ends an attempt.
--   ARGV  1 job id   2 lease token   3 machine id
--         4 kind: completed | failed | retry | release
--         5 retry count to write   6 delay in ms before it may be claimed again (retry, release)
--         7 error text   8 failure type   9 failure reason   (failed, retry); completed: message, step and number of steps
--           of the last progress
--         10 value for jobs:completed or jobs:failed   11 message for complete_job or job_failed
--         12 sum of 1 when the machine reports to an aggregator (unified mode), 2 when the job had nothing to say of
--            failed attempts when it was claimed, 4 when the caller has had jobs:completed kept less than a second ago
--         13.. attestation key, record, ...
--   reply {1, 'done'}, {1, 'repeated'} when this token settled before, {0, status} when the lease is not held:
--         then nothing of the job was changed and nothing published
redis.register_function{function_name = 'emp_trio_settle', flags = {'allow-oom'}, callback = function(_, argv)
  local id, token, machine, kind = argv[1], argv[2], argv[3], argv[4]
  local ours, status, settled, worker, place = held(id, token)
  if settled == token then return {1, 'repeated'} end
  if not ours then
    refund(process_of(token))
    return {0, status}
  end
  if (kind == 'retry' or kind == 'release') and not can_requeue() then return not_zset(PENDING) end
  local now, key, how = clock(), 'job:' .. id, tonumber(argv[12])
  for i = 13, #argv, 2 do redis.call('SET', argv[i], argv[i + 1]) end
  if kind == 'completed' then
    redis.call('HSET', key, 'status', 'completed', 'completed_at', now.iso, 'lease_token', '', 'settled_token', token)
    -- what earlier attempts said of themselves
    if how % 4 < 2 and redis.call('HDEL', key, 'error', 'failure_type', 'failure_reason', 'failed_at') > 0 then
      redis.pcall('HDEL', 'jobs:failed', id)
    end
    drop_lease(id, worker)
    redis.pcall('HSET', 'jobs:completed', id, argv[10])
    if how < 4 then redis.pcall('EXPIRE', 'jobs:completed', COMPLETED_TTL) end
    -- Every reader of progress ends at 100, as with the fleet's workers: their connectors say so before they return.
    redis.pcall('HSET', key .. ':progress', 'progress', '100', 'status', 'completed', 'message', argv[7],
      'updated_at', now.iso)
    say_progress(id, worker, place, 100, 'in_progress', argv[7], argv[8], argv[9], now)
    redis.call('PUBLISH', 'complete_job', argv[11])
  elseif kind == 'failed' then
    redis.call('HSET', key, 'status', 'failed', 'failed_at', now.iso, 'retry_count', argv[5], 'error', argv[7],
      'failure_type', argv[8], 'failure_reason', argv[9], 'last_failed_worker', worker, 'lease_token', '',
      'settled_token', token)
    drop_lease(id, worker)
    redis.pcall('HSET', 'jobs:failed', id, argv[10])
    redis.pcall('EXPIRE', 'jobs:failed', FAILED_TTL)
    redis.call('PUBLISH', 'job_failed', argv[11])
  else
    redis.call('HSET', key, 'status', 'pending', 'worker_id', '', 'assigned_at', '', 'lease_token', '',
      'settled_token', token)
    if kind == 'retry' then
      redis.call('HSET', key, 'retry_count', argv[5], 'last_failed_worker', worker, 'failed_at', now.iso,
        'error', argv[7], 'failure_type', argv[8], 'failure_reason', argv[9])
      redis.call('HDEL', key, 'crashes', 'charged', 'unstarted')  -- this attempt did not end its process
    end
    drop_lease(id, worker)
    requeue(id, tonumber(argv[6]), now)
  end
  set_slot_state(worker, 'idle', '', now)
  say_slot_state(worker, machine, 'idle', '', now)
  if how % 2 == 1 and kind == 'completed' then
    publish('machine:' .. machine .. ':worker:' .. worker, {worker_id = worker, event_type = 'job_completed',
      timestamp = now.ms, data = {job_id = id, service_type = fields(key, 'service_required')[1] or ''}})
  end
  return {1, 'done'}
end}
