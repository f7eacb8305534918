-- What the holder of a lease does before it settles. Each call names the lease token; a stale token changes nothing.

local function mark_started(id, now) redis.call('HSET', 'job:' .. id, 'status', 'in_progress', 'started_at', now.iso) end

-- machine: '' unless it reports to an aggregator.
local function say_started(id, worker, place, machine, now)
  say_progress(id, worker, place, 1, 'processing', '', '', 0, now)
  if machine ~= '' then
    publish('machine:' .. machine .. ':worker:' .. worker, {worker_id = worker, event_type = 'job_started',
      timestamp = now.ms, data = {job_id = id, service_type = fields('job:' .. id, 'service_required')[1] or ''}})
  end
end

-- emp_trio_start: attempts begin to run.   ARGV 1 machine id, '' unless the machine reports to an aggregator
--   2.. job id, lease token, ...   reply ids whose lease is not held
redis.register_function{function_name = 'emp_trio_start', flags = {'allow-oom'}, callback = function(_, argv)
  local now, gone = clock(), {}
  for i = 2, #argv, 2 do
    local id = argv[i]
    local ours, _, _, worker, place = held(id, argv[i + 1])
    if ours then
      mark_started(id, now)
      say_started(id, worker, place, argv[1], now)
    else
      gone[#gone + 1] = id
    end
  end
  return gone
end}

-- emp_trio_begin: the same for jobs of which their claim has published nothing.
--   ARGV 1 machine id   2 '1' when it reports to an aggregator   3 'mark' (they run), 'tell' (publish that they were
--   claimed and run) or 'both'   4.. job id, lease token, ...   reply ids whose lease is not held
redis.register_function{function_name = 'emp_trio_begin', flags = {'allow-oom'}, callback = function(_, argv)
  local machine, unified, what, now, gone = argv[1], argv[2] == '1', argv[3], clock(), {}
  for i = 4, #argv, 2 do
    local id = argv[i]
    local ours, _, _, worker, place = held(id, argv[i + 1])
    if ours then
      if what ~= 'tell' then mark_started(id, now) end
      if what ~= 'mark' then
        local told = fields('job:' .. id, 'assigned_at', unpack(TOLD))
        local job = {}
        for n, name in ipairs(TOLD) do job[name] = told[n + 1] end
        say_claimed(id, job, worker, machine, told[1] or now.lua, now)
        say_started(id, worker, place, unified and machine or '', now)
      end
    else
      local token = fields('job:' .. id, 'lease_token')[1]
      if what ~= 'mark' and worker ~= '' and (token == argv[i + 1] or token == '') then
        say_slot_state(worker, machine, 'busy', id, now)  -- cancelled just now: the slot will say that it is idle
      end
      gone[#gone + 1] = id
    end
  end
  return gone
end}

-- emp_trio_progress: progress of several jobs at once (queue protocol 2.3, 4.6).
--   ARGV job id, lease token, progress, message, current_step, total_steps, and again   reply ids whose lease is gone
redis.register_function('emp_trio_progress', function(_, argv)
  local now, gone = clock(), {}
  for i = 1, #argv, 6 do
    local id = argv[i]
    local ours, _, _, worker, place = held(id, argv[i + 1])
    if ours then
      redis.pcall('HSET', 'job:' .. id .. ':progress', 'progress', argv[i + 2], 'status', 'in_progress',
        'message', argv[i + 3], 'updated_at', now.iso)
      say_progress(id, worker, place, tonumber(argv[i + 2]), 'in_progress', argv[i + 3], argv[i + 4], argv[i + 5], now)
    else
      gone[#gone + 1] = id
    end
  end
  return gone
end)

-- emp_trio_remember: what a next attempt needs to adopt the upstream work.   ARGV 1 job id  2 lease token  3 JSON
redis.register_function{function_name = 'emp_trio_remember', flags = {'allow-oom'}, callback = function(_, argv)
  if not held(argv[1], argv[2]) then return 0 end
  redis.call('HSET', 'job:' .. argv[1], 'checkpoint', argv[3])
  return 1
end}

-- emp_trio_renew: all leases of a machine.   ARGV 1 lease in ms  2.. job id, lease token, ...
--   reply {job id, 'lost' | 'cancelled'} for each lease that is not held any more
redis.register_function{function_name = 'emp_trio_renew', flags = {'allow-oom'}, callback = function(_, argv)
  if not is_zset(LEASES) then return not_zset(LEASES) end
  local now, gone = clock(), {}
  local ends = now.ms + tonumber(argv[1])
  for i = 2, #argv, 2 do
    local id = argv[i]
    local ours, status, settled = held(id, argv[i + 1])
    if ours then
      hold(id, ends)
    elseif settled ~= argv[i + 1] then
      -- A cancel is the only way a running job becomes failed without its holder: ours clears the token, the API's not.
      gone[#gone + 1] = {id, status == 'failed' and 'cancelled' or 'lost'}
      refund(process_of(argv[i + 1]))
    end
  end
  return gone
end}
