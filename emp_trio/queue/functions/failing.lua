-- The end of a job whose failure no slot reports: records (queue protocol 1.8), hash, lists, message (2.5).

local function attest_failure(id, f, worker, machine, failure, count, permanent, now)
  local step = string.gsub(id, '^step%-', '', 1)
  local workflow = given(f.workflow_id)
  local key = (workflow and 'job-id:' .. workflow .. ':' or '') .. 'step-id:' .. step
  local null = cjson.null
  local record = {attestation_type = permanent and 'failure_permanent' or 'failure_retry', job_id = id,
    worker_id = worker, status = permanent and 'failed_permanent' or 'failed_retrying', failed_at = now.iso,
    error_message = failure.error, failure_type = failure.type, failure_reason = failure.reason,
    failure_description = failure.error, raw_service_output = null, raw_service_request = null, retry_count = count,
    will_retry = not permanent, max_retries = attempts_of(f), workflow_id = workflow or null,
    current_step = given(f.current_step) or null, total_steps = given(f.total_steps) or null,
    workflow_impact = workflow and (permanent and 'workflow_terminated' or 'workflow_interrupted') or null,
    machine_id = machine ~= '' and machine or 'unknown', worker_version = 'emp-trio', attestation_created_at = now.ms}
  local text = cjson.encode(record)
  if permanent then
    redis.call('SET', 'worker:failure:' .. key .. ':permanent', text)
    redis.call('SET', 'worker:completion:' .. key, text)
  else
    redis.call('SET', 'worker:failure:' .. key .. ':attempt:' .. count, text)
  end
  if workflow then
    record.workflow_attestation_type, record.failed_job_id = 'job_failure', id
    record.workflow_status = record.status
    redis.call('SET', 'workflow:failure:' .. workflow .. (permanent and ':permanent' or ':attempt:' .. count),
      cjson.encode(record))
  end
end

local function job_table(id)
  local reply = redis.pcall('HGETALL', 'job:' .. id)
  local f = {}
  if reply.err then return f end
  for i = 1, #reply, 2 do f[reply[i]] = reply[i + 1] end
  return f
end

-- Ends a job for good and says so once. The caller has taken it out of every list it was in.
local function fail_for_good(id, f, worker, machine, failure, count, now)
  attest_failure(id, f, worker, machine, failure, count, true, now)
  redis.call('HSET', 'job:' .. id, 'status', 'failed', 'failed_at', now.iso, 'error', failure.error,
    'failure_type', failure.type, 'failure_reason', failure.reason, 'retry_count', count, 'lease_token', '',
    'last_failed_worker', worker)
  redis.pcall('HSET', 'jobs:failed', id, cjson.encode({error = failure.error, failed_at = now.iso, retry_count = count}))
  redis.pcall('EXPIRE', 'jobs:failed', FAILED_TTL)
  local message = {job_id = id, worker_id = worker, status = 'failed', error = failure.error, failed_at = now.iso,
    retry_count = count, can_retry = false, timestamp = now.ms, workflow_id = given(f.workflow_id),
    current_step = number(f.current_step), total_steps = number(f.total_steps),
    workflow_priority = number(f.workflow_priority), workflow_datetime = number(f.workflow_datetime)}
  publish('job_failed', message)
end
