-- emp_trio_reap: jobs whose lease ran out, and delayed jobs that are due. Any machine may call it at any time.
--   ARGV  1 entries to handle of each kind, at most   2 crashes after which a job fails for good
--         3 nonce of a process that does this again and again, '' for somebody who looks once; he gives also
--         4 ms, by this server's time, after which this call is too late to judge, or 0   5, 6 silence and grace, see
--           lapse.lua
--   reply {ms until there is something to do again or -1, requeued ids, {failed id, reason} each, due ids,
--         {id or key, error} of each that could not be handled}, and ms where ARGV 4 is given
-- A lease that ran out before the attempt began to run (its claim's reply was lost) is no crash and uses no attempt. But
-- a job to which that happens again and again may be what ends its worker: it fails after UNSTARTED times as many.
local UNSTARTED = 3

-- Whether a job that is taken off our lists is anywhere else: settled, pending, delayed, or with a worker that does not
-- know of leases, which keeps it in its list.
local function elsewhere(id, f, list)
  if SETTLED[f.status] or redis.call('ZSCORE', PENDING, id) then return true end
  if list ~= DELAYED and is_zset(DELAYED) and redis.call('ZSCORE', DELAYED, id) then return true end
  if list ~= LEASES and is_zset(LEASES) and redis.call('ZSCORE', LEASES, id) then return true end
  local worker = given(f.worker_id)
  local listed = RUNNING[f.status] and worker and redis.pcall('HEXISTS', 'jobs:active:' .. worker, id)
  return listed == 1
end

-- Puts a job back into the queue without anything having failed.
local function put_back(id, f, now)
  if f.status ~= 'pending' then
    redis.call('HSET', 'job:' .. id, 'status', 'pending', 'worker_id', '', 'assigned_at', '', 'lease_token', '')
  end
  requeue(id, 0, now)
end

-- A worker that runs a job for the last time: its lease ran out, or it is gone for good. used: whether it had begun to
-- run. counted: whether that costs one of the submitter's attempts, as with a worker of whom nobody can say more; a
-- process of ours is charged with a crash. Returns why the job has failed for good, or nil where it went back into the
-- queue.
local function end_of_worker(id, f, worker, used, counted, max_crashes, why, now)
  local crashes, count = count_of(f.crashes) + used, count_of(f.retry_count) + (counted and used or 0)
  local unstarted = count_of(f.unstarted) + 1 - used
  local failure = {type = 'system_error', reason = 'internal_error',
    error = 'worker ' .. unicode(worker) .. ' ' .. why .. ' (crash ' .. int(crashes) .. ')'}
  local never = used == 0 and unstarted >= max_crashes * UNSTARTED
  if never then
    failure.error = 'claimed ' .. int(unstarted) .. ' times and never begun, last by worker ' .. unicode(worker) ..
      ': the job may end the process that takes it'
  end
  redis.call('HSET', 'job:' .. id, 'crashes', int(crashes), 'unstarted', int(unstarted))
  if never or (used == 1 and (crashes >= max_crashes or (counted and count >= attempts_of(f)))) then
    fail_for_good(id, f, worker, '', failure, count, now)
    return failure.error
  end
  if used == 1 then
    attest_failure(id, f, worker, '', failure, count + (counted and 0 or 1), false, now)
    charge(id, f.lease_token, f.charged)
  end
  redis.call('HSET', 'job:' .. id, 'status', 'pending', 'worker_id', '', 'assigned_at', '', 'lease_token', '',
    'retry_count', int(count), 'last_failed_worker', worker, 'failed_at', now.iso, 'error', failure.error)
  requeue(id, 0, now)
  return nil
end

local function reap_lease(id, max_crashes, now, requeued, failed)
  local f, size = record('job:' .. id, ENDING)
  local worker, holder = given(f.worker_id), given(f.lease_worker)
  if (f.status == 'assigned' or f.status == 'in_progress') and worker and holder == worker then
    local used = f.status == 'in_progress' and 1 or 0
    local counted = not process_of(f.lease_token)
    local why = end_of_worker(id, f, worker, used, counted, max_crashes, 'stopped renewing its lease on this job', now)
    if why then
      failed[#failed + 1] = {id, why}
    else
      requeued[#requeued + 1] = id
    end
    drop_active(id, worker)
  else
    drop_active(id, holder)  -- first: the list of who held the lease is no other place
    if size ~= 'none' and size ~= 'other' and not elsewhere(id, f, LEASES) then
      put_back(id, f, now)
      requeued[#requeued + 1] = id
    end  -- else the job is gone, or somebody who knows of no leases put it back, ended it or took it
  end
  redis.call('ZREM', LEASES, id)
end

local function reap_delayed(id, now, due)
  local f, size = record('job:' .. id, ENDING)
  local back = size ~= 'none' and size ~= 'other' and not elsewhere(id, f, DELAYED)
  redis.call('ZREM', DELAYED, id)
  if back then
    put_back(id, f, now)
    due[#due + 1] = id
  end
end

-- Nothing of ours ends later than that from now on: where it says so, a clock was wrong, or somebody else wrote it.
local FARTHEST = 172800000  -- ms; leases are seconds, delays a day at most (LONGEST_WAIT of retry.py)

-- Up to most ids of a zset that are due, each by what; one that can't be handled must not keep the others from it: it is
-- looked at again later.
local function each_due(list, most, what, now, broken)
  for _, span in ipairs({{'-inf', int(now.ms)}, {int(now.ms + FARTHEST), '+inf'}}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', list, span[1], span[2], 'LIMIT', 0, most)) do
      local ok, why = pcall(what, id)
      if not ok then
        redis.call('ZADD', list, int(now.ms + BROKEN_PAUSE), id)
        broken[#broken + 1] = {id, type(why) == 'table' and why.err or tostring(why)}
      end
    end
  end
end

-- Whether all three lists can be used; a broken one is told as if it were a job.
local function lists_stand(broken)
  local stand = true
  for _, list in ipairs({PENDING, LEASES, DELAYED}) do
    if not is_zset(list) then
      broken[#broken + 1] = {list, 'the key is not a sorted set: repair or delete it'}
      stand = false
    end
  end
  return stand
end

redis.register_function{function_name = 'emp_trio_reap', flags = {'allow-oom'}, callback = function(_, argv)
  local now, most, max_crashes, nonce = clock(), tonumber(argv[1]), tonumber(argv[2]), argv[3]
  local requeued, failed, due, broken = {}, {}, {}, {}
  local latest, at = tonumber(argv[4] or '0'), argv[4] and now.ms or nil
  if given(nonce) then
    redis.pcall('ZADD', PROCESSES, int(now.ms), nonce)
    hear(now)
    if argv[6] then redis.pcall('HSET', 'emp:heard', 'silence', argv[5], 'grace', argv[6]) end
  end
  if latest > 0 and now.ms > latest then return {0, requeued, failed, due, broken, at} end
  if not lists_stand(broken) then return {BROKEN_PAUSE, requeued, failed, due, broken, at} end
  local grace = grace_left()
  if grace == 0 then
    each_due(LEASES, most, function(id) reap_lease(id, max_crashes, now, requeued, failed) end, now, broken)
  end
  each_due(DELAYED, most, function(id) reap_delayed(id, now, due) end, now, broken)
  local next_ms = -1
  for _, set in ipairs({LEASES, DELAYED}) do
    local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if first[2] then
      local wait = math.min(1e12, math.max(set == LEASES and grace or 0, tonumber(first[2]) - now.ms))
      if next_ms < 0 or wait < next_ms then next_ms = wait end
    end
  end
  return {next_ms, requeued, failed, due, broken, at}
end}

-- emp_trio_depart: a process goes, or somebody looks who is none. Where no other process looks for what is due any more,
-- delayed jobs go back into the queue before their time: nobody else in the fleet reads emp:delayed.
--   ARGV  1 nonce, '' for somebody who is none   2 jobs to put back, at most   3 '1': put them back all the same
--   reply {ids put back, delayed jobs that are left, leases that are left, ms at which the last of these ends or 0,
--         ms at which another process looked last or 0, ms}
-- A process that was killed just now seems to be there for SPEAKS ms: that another one lives is certain when the time of
-- its last look has changed since, or when leases are given or renewed.
local SPEAKS = 8000  -- ms; a process looks every 5 to 6 s (reap_every of worker/settings.py)

redis.register_function{function_name = 'emp_trio_depart', flags = {'allow-oom'}, callback = function(_, argv)
  local now, back, broken = clock(), {}, {}
  if argv[1] ~= '' then
    redis.pcall('ZREM', PROCESSES, argv[1])
    redis.call('DEL', 'emp:suspect:' .. argv[1])
  end
  redis.pcall('ZREMRANGEBYSCORE', PROCESSES, '-inf', int(now.ms - SPEAKS))
  redis.pcall('ZREMRANGEBYSCORE', PROCESSES, int(now.ms + SPEAKS), '+inf')
  local newest = redis.pcall('ZREVRANGE', PROCESSES, 0, 0, 'WITHSCORES')
  local looked = not newest.err and newest[2] and math.min(1e15, math.max(1, tonumber(newest[2]))) or 0
  if lists_stand(broken) and (looked == 0 or argv[3] == '1') then
    for _, id in ipairs(redis.call('ZRANGE', DELAYED, 0, tonumber(argv[2]) - 1)) do
      pcall(reap_delayed, id, now, back)
    end
  end
  local delayed, leases = redis.pcall('ZCARD', DELAYED), redis.pcall('ZCARD', LEASES)
  local last = redis.pcall('ZREVRANGE', LEASES, 0, 0, 'WITHSCORES')
  local ends = not last.err and last[2] and math.min(1e15, math.max(0, tonumber(last[2]))) or 0
  return {back, type(delayed) == 'number' and delayed or 0, type(leases) == 'number' and leases or 0, ends, looked, now.ms}
end}
