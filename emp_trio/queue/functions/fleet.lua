-- The machine's slots as the fleet sees them (queue protocol 1.5, 2.7, 2.8, 4.4).

-- A job that this slot is said to run without a lease was left by another worker of the same id (an old worker that
-- was replaced by ours). It is watched for as long as that worker's heartbeat still counts, then reaped. One that is
-- elsewhere by now is taken off the slot. Returns whether the job is the slot's, and whether it was left just now.
local function look_at_active_job(worker, id, now)
  local f = record('job:' .. id, {'status', 'worker_id'})
  local queued = false
  for _, list in ipairs({PENDING, DELAYED}) do queued = queued or type(redis.pcall('ZSCORE', list, id)) == 'string' end
  if queued or not ((f.status == 'assigned' or f.status == 'in_progress') and f.worker_id == worker) then
    drop_active(id, worker)
    return false, false
  end
  if not is_zset(LEASES) then return true, false end
  if redis.call('ZSCORE', LEASES, id) then return true, false end
  redis.call('HSET', 'job:' .. id, 'lease_token', 'left/' .. worker, 'lease_worker', worker)
  local wait = math.max(0, redis.call('PTTL', 'worker:' .. worker .. ':heartbeat'))
  hold(id, now.ms + wait)
  return true, true
end

-- emp_trio_beat: registers slots, or keeps them alive; every registration field is written each time.
--   ARGV  1 machine id   2 connected_at   3 '1' when the slots come new   4 connector statuses JSON
--         5 JSON {worker type: capabilities JSON with @WORKER_ID@ in place of the id}
--         6 JSON [[worker id, worker type, completed, failed, version, build time, build info], ...]   7.. channel, message, ... to publish
--   reply ids of the jobs that were left at these slots by somebody else
redis.register_function{function_name = 'emp_trio_beat', flags = {'allow-oom'}, callback = function(_, argv)
  local now, left = clock(), {}
  local types, fresh = cjson.decode(argv[5]), argv[3] == '1'
  for _, slot in ipairs(cjson.decode(argv[6])) do
    local worker = slot[1]
    local key, busy = 'worker:' .. worker, nil
    for _, id in ipairs(active_of(worker)) do
      local here, just_left = true, false
      if fresh then here, just_left = look_at_active_job(worker, id, now) end
      if just_left then left[#left + 1] = id end
      if here then busy = id end
    end
    local capabilities = string.gsub(types[slot[2]], '@WORKER_ID@', function() return worker end)
    redis.pcall('HSET', key, 'worker_id', worker, 'machine_id', argv[1],
      'capabilities', capabilities, 'status', busy and 'busy' or 'idle',
      'current_job_id', busy or '', 'last_heartbeat', now.iso, 'connected_at', argv[2],
      'total_jobs_completed', slot[3], 'total_jobs_failed', slot[4], 'connector_statuses', argv[4])
    if slot[5] then
      redis.pcall('HSET', key, 'version', slot[5], 'build_timestamp', slot[6], 'build_info', slot[7])
      set_about(worker, slot[5], slot[6], slot[7])
    end
    redis.call('EXPIRE', key, WORKER_TTL)
    redis.pcall('SADD', 'workers:active', worker)
    redis.call('SET', key .. ':heartbeat', now.iso, 'EX', HEARTBEAT_TTL)
  end
  for i = 7, #argv, 2 do redis.call('PUBLISH', argv[i], argv[i + 1]) end
  return left
end}

-- emp_trio_leave: slots go, but for those that another process of emp-trio has taken over.
--   ARGV  1 nonce of the process, '' for none   2 number of worker ids   3.. worker ids, then channel, message, ... to publish
redis.register_function{function_name = 'emp_trio_leave', flags = {'allow-oom'}, callback = function(_, argv)
  local nonce, last = argv[1], tonumber(argv[2]) + 2
  if nonce ~= '' then leaves(nonce) end
  for i = 3, last do
    if not of_another(argv[i], nonce) then
      redis.pcall('SREM', 'workers:active', argv[i])
      redis.call('DEL', 'worker:' .. argv[i], 'worker:' .. argv[i] .. ':heartbeat')
    end
  end
  for i = last + 1, #argv, 2 do redis.call('PUBLISH', argv[i], argv[i + 1]) end
  return last - 2
end}

-- emp_trio_age: the API writes hashes of slots that have left, from its memory; they shall not stay.   ARGV worker ids
redis.register_function('emp_trio_age', function(_, argv)
  for _, worker in ipairs(argv) do redis.call('EXPIRE', 'worker:' .. worker, WORKER_TTL) end
  return #argv
end)
