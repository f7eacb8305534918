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
  local encoded = json(record)
  if permanent then
    redis.call('SET', 'worker:failure:' .. key .. ':permanent', encoded)
    redis.call('SET', 'worker:completion:' .. key, encoded)
  else
    redis.call('SET', 'worker:failure:' .. key .. ':attempt:' .. int(count), encoded)
  end
  if workflow then
    record.workflow_attestation_type, record.failed_job_id = 'job_failure', id
    record.workflow_status = record.status
    redis.call('SET', 'workflow:failure:' .. workflow .. (permanent and ':permanent' or ':attempt:' .. int(count)),
      json(record))
  end
end

-- Fields that the end of a job needs.
local ENDING = {'id', 'service_required', 'status', 'worker_id', 'lease_token', 'lease_worker', 'retry_count', 'max_retries',
  'crashes', 'charged', 'unstarted', 'workflow_id', 'current_step', 'total_steps', 'workflow_priority', 'workflow_datetime',
  'cancelled_at', 'retry_token'}

local SETTLED = {completed = true, failed = true, cancelled = true, timeout = true, unworkable = true}
local RUNNING = {assigned = true, in_progress = true, accepted = true}

-- Whether a hash is a job's: every reader looks for these (queue protocol 1.3). job:{id}:progress is not, unless there
-- is a job of such an id.
local function is_job(f) return f.id or f.service_required end

-- The list of failed jobs and the message about one that will not be tried again.
local function tell_failed(id, f, worker, failure, count, now)
  redis.pcall('HSET', 'jobs:failed', id, json({error = failure.error, failed_at = now.iso, retry_count = count}))
  redis.pcall('EXPIRE', 'jobs:failed', FAILED_TTL)
  local message = {job_id = id, worker_id = worker, status = 'failed', error = failure.error, failed_at = now.iso,
    retry_count = count, can_retry = false, timestamp = now.ms, workflow_id = given(f.workflow_id),
    current_step = number(f.current_step), total_steps = number(f.total_steps),
    workflow_priority = number(f.workflow_priority), workflow_datetime = number(f.workflow_datetime)}
  publish('job_failed', message)
end

-- Ends a job for good and says so once. The caller has taken it out of every list it was in.
local function fail_for_good(id, f, worker, machine, failure, count, now)
  attest_failure(id, f, worker, machine, failure, count, true, now)
  redis.call('HSET', 'job:' .. id, 'status', 'failed', 'failed_at', now.iso, 'error', failure.error,
    'failure_type', failure.type, 'failure_reason', failure.reason, 'retry_count', int(count), 'lease_token', '',
    'last_failed_worker', worker)
  tell_failed(id, f, worker, failure, count, now)
end

-- Ends a job whose id can't be used. No records: their keys might be another job's. Its hash may be another job's
-- progress: then status is left to that job.
local function fail_bad_id(id, why, now)
  local key = 'job:' .. id
  local f = record(key, ENDING)
  local owner = string.sub(id, -9) == ':progress' and string.sub(id, 1, -10)
  local shared = owner and redis.call('EXISTS', 'job:' .. owner) == 1
  redis.call('ZREM', PENDING, id)
  if not is_job(f) then return 'there is no job of this id' end
  local failure, count = {error = 'invalid_job: ' .. why}, count_of(f.retry_count)
  redis.call('HSET', key, 'failed_at', now.iso, 'error', failure.error, 'failure_type', 'validation_error',
    'failure_reason', 'invalid_payload')
  if not shared then redis.call('HSET', key, 'status', 'failed', 'lease_token', '') end
  tell_failed(id, f, '', failure, count, now)
  return failure.error
end

-- Looks at a pending id so long that each call which names it takes part of a millisecond or more: as few as can be. Such
-- a job has never been leased. Nor is the id looked through, which takes longer than all else: it is told as it is if
-- it begins as plain text, else by its beginning. wants(service, workflow) says whether it is ours to judge; bound,
-- whether that depends on the workflow. Returns 'no', or 'gone' and the reason.
local ENDLESS_ID, LONGEST_TOLD = 4096, 2097152

-- JSON of such an id. Encoding reads it character by character; mostly there is nothing in it to be escaped.
local function text_of_endless(id)
  if string.find(id, '"', 1, true) or string.find(id, '\\', 1, true) then return text(id) end
  for code = 0, 31 do
    if string.find(id, string.char(code), 1, true) then return text(id) end
  end
  return '"' .. id .. '"'
end

local function end_endless(id, bound, wants, now)
  local key, names = 'job:' .. id, bound and {'service_required', 'status', 'workflow_id'} or {'service_required', 'status'}
  local other = false
  for i, name in ipairs(names) do
    local length = redis.pcall('HSTRLEN', key, name)
    other = other or wrong_type(length)
    if not other and length > LONGEST then
      if name ~= 'status' then return 'no' end
      names[i] = ''  -- a field of no name, which is unset
    end
  end
  local f = other and {} or redis.call('HMGET', key, unpack(names))
  local there = f[1] or (not other and redis.call('HEXISTS', key, 'id') == 1)
  if there and not SETTLED[f[2]] and not wants(f[1], f[3] or '') then return 'no' end
  redis.call('ZREM', PENDING, id)
  if not there then return 'gone', 'there is no job of this id' end
  if SETTLED[f[2]] then return 'gone', 'it is ' .. f[2] .. ' already' end
  local failure = {error = 'invalid_job: ' .. bad_id(id)}
  redis.call('HSET', key, 'status', 'failed', 'lease_token', '', 'failed_at', now.iso, 'error', failure.error,
    'failure_type', 'validation_error', 'failure_reason', 'invalid_payload')
  redis.pcall('HSET', 'jobs:failed', id, json({error = failure.error, failed_at = now.iso, retry_count = 0}))
  redis.pcall('EXPIRE', 'jobs:failed', FAILED_TTL)
  local plain = #id <= LONGEST_TOLD and not string.find(string.sub(id, 1, LONGEST_ID), '[\128-\255]')
  local rest = json({worker_id = '', status = 'failed', error = failure.error, failed_at = now.iso, retry_count = 0,
    can_retry = false, timestamp = now.ms})
  redis.call('PUBLISH', 'job_failed', '{"job_id":' .. (plain and text_of_endless(id) or text(shown(id))) .. ',' ..
    string.sub(rest, 2))
  return 'gone', failure.error
end
