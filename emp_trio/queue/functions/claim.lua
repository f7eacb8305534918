-- emp_trio_claim: up to one job for each free slot, best first.
--   ARGV  1 capabilities JSON of the worker type (queue protocol 4.3, without worker_id)   2 machine id
--         3 lease in ms   4 rank to begin at   5 ids to look at, at most
--         6 sum of 1 when this very call was sent before, 2 when nothing is to be published of jobs whose submitter may
--           not have announced them yet: the caller does that by emp_trio_begin (emp_trio_submit announces by itself)
--         7.. worker id, nonce, worker id, nonce, ...
--   reply {next, ms, jobs, dropped}
--         next     rank to go on at when a budget ran out before the slots were filled, else -1
--         jobs     {worker id, lease token, job id, {field, value, ...}, {field that is too long for this, ...}} each:
--                  the hash as it was before the claim; in a repeated call as it is now
--         dropped  {job id, reason} of what was taken out of jobs:pending because nobody can ever run it
-- Writes what findMatchingJob writes (queue protocol 3.3), plus a lease. Payloads are read for claimed jobs only, and
-- long ones not at all: the caller reads them by itself. So Redis is held for a few ms at most, whatever stands in the
-- queue: one call looks at ARGV 5 ids, decodes DECODED bytes of requirements and answers with ANSWERED bytes of jobs.

local LOOKED_AT = {'service_required', 'id', 'status', 'requirements', 'workflow_id', 'customer_id', 'lease_worker',
  'worker_id', 'crashes'}
local READ_LATER = {'current_step', 'total_steps', 'settled_token'}  -- by each call about a leased job
local FIRST = {'service_required', 'id', 'status'}
local DECODED, ANSWERED = 65536, 524288
local LONGEST_PAYLOAD = 67108864  -- bytes, of payload, ctx and checkpoint each (MAX_PAYLOAD_BYTES of queue/job_hash.py)
local FAILING = 3  -- what it costs to fail a job, in ids
local PAGE = 16    -- ids that are fetched at once; their length is not known before

local function by_name(flat)
  local job = {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  return job
end

-- A job is this slot's: its hash. match: {id, worker, nonce, seen}, which becomes the job's part of the reply;
-- returns the hash as it was, by name.
local function assign(match, now)
  local id, worker, nonce, seen = match[1], match[2], match[3], match[4]
  local key = 'job:' .. id
  local flat, left, job = seen.flat, {}, seen.job
  if not flat then
    flat, left = whole(key, seen.size)
    job = by_name(flat)
  end
  local attempt = int(math.min(MOST, count_of(job.attempt) + 1))
  local token = nonce .. '/' .. attempt
  if given(job.lease_token) then drop_lease(id, job.lease_worker) end  -- somebody put a leased job back
  redis.call('HSET', key, 'status', 'assigned', 'worker_id', worker, 'assigned_at', now.lua,
    'lease_token', token, 'lease_worker', worker, 'attempt', attempt)
  return {worker, token, id, flat, left}, job
end

-- Takes the matches of one page, all in one step, since each call costs as much for one job as for many. Adds them to
-- jobs.
local function take(matches, jobs, machine, lease, quiet, now)
  if #matches == 0 then return end
  local ids, leases, taken, before = {}, {}, {}, {}
  local ends = int(now.ms + lease)
  for i, match in ipairs(matches) do
    taken[i], before[i] = assign(match, now)
    ids[i], leases[2 * i - 1], leases[2 * i] = match[1], ends, match[1]
  end
  redis.call('ZREM', PENDING, unpack(ids))
  redis.call('ZADD', LEASES, unpack(leases))
  -- The leases stand; a key of a wrong type among the fleet's other ones must not stop the claim half way.
  for i, id in ipairs(ids) do
    local worker, job = taken[i][1], before[i]
    redis.pcall('HSET', 'jobs:active:' .. worker, id, cjson.encode(job))
    redis.pcall('XADD', 'progress:' .. id, '*', 'job_id', id, 'worker_id', worker, 'status', 'assigned', 'progress', '0',
      'message', 'Job assigned to worker', 'assigned_at', now.lua)
    set_slot_state(worker, 'busy', id, now)
    if not (quiet and not given(job.submit_token)) then say_claimed(id, job, worker, machine, now.lua, now) end
    jobs[#jobs + 1] = taken[i]
  end
end

-- What a nonce was given in a claim whose reply was lost, or has not been read yet: it is in jobs:active of the slot. Its
-- lease counts from now on. Returns id and token, or nil.
local function hold_taken(worker, nonce, lease, now)
  for _, id in ipairs(active_of(worker)) do
    local f = fields('job:' .. id, 'lease_token', 'lease_worker', 'status', 'worker_id')
    if f[1] and string.sub(f[1], 1, #nonce + 1) == nonce .. '/' and f[2] == worker and f[4] == worker and
      f[3] == 'assigned' then
      hold(id, now.ms + lease)
      return id, f[1]
    end
  end
  return nil
end

-- A claim whose reply was lost. The caller counts the lease from this call on.
local function taken_before(worker, nonce, lease, now)
  local id, token = hold_taken(worker, nonce, lease, now)
  if not id then return nil end
  local flat, left = whole('job:' .. id, size_of('job:' .. id))
  return {worker, token, id, flat, left}
end

-- emp_trio_hold: renews what claims have brought whose replies have not been read, because the caller stands still.
--   ARGV  1 lease in ms   2.. worker id, nonce, ... as in the claims   reply how many jobs that were
redis.register_function{function_name = 'emp_trio_hold', flags = {'allow-oom'}, callback = function(_, argv)
  if not is_zset(LEASES) then return not_zset(LEASES) end
  local now, count = clock(), 0
  for i = 2, #argv, 2 do
    if hold_taken(argv[i], argv[i + 1], tonumber(argv[1]), now) then count = count + 1 end
  end
  return count
end}

-- Why a job that this worker serves can't be run by anybody, judged by the lengths of its fields, or nil.
local function too_long(key, long)
  for _, name in ipairs(READ_LATER) do
    if not long and redis.call('HSTRLEN', key, name) > LONGEST then long = name end
  end
  if long then return long .. ' is longer than ' .. LONGEST / 1024 .. ' KiB' end
  for _, name in ipairs({'payload', 'ctx', 'checkpoint'}) do
    if redis.call('HSTRLEN', key, name) > LONGEST_PAYLOAD then
      return 'the ' .. name .. ' is larger than ' .. LONGEST_PAYLOAD / 1048576 .. ' MiB'
    end
  end
  return nil
end

-- Looks at one pending id: 'match' (with {size, bytes} of its hash, and {flat, job} if it was read), 'no', 'gone' (with the reason why it was taken out),
-- 'later' when its requirements are more than this call may still decode. asked: {worker = decoded capabilities,
-- served, bytes = bytes it may decode, known = what was decoded, by text, whole = whether the id before was a match: then
-- this one most likely is, too, and a small hash is read as a whole at once, process = nonce of the caller's process, suspect = not nil
-- when this call has a suspect for it already}
local function inspect(id, asked, now)
  if #id > ENDLESS_ID then
    return end_endless(id, given(asked.worker.workflow_id), function(service, workflow)
      return serves({service = service, workflow = workflow}, asked.worker, asked.served)
    end, now)
  end
  local key = 'job:' .. id
  local size, bytes = size_of(key)
  if size == 'large' then  -- most are of other types: then three fields are enough
    local f, long = values_of(key, size, FIRST)
    if long == FIRST[1] or (f[1] and not asked.served[f[1]] and not SETTLED[f[3]]) then return 'no' end
  end
  local f, long, flat, read
  if size == 'small' and asked.whole then
    flat = read_hash('HGETALL', key)
    read = flat and by_name(flat)
    f = read and {read.service_required or false, read.id or false, read.status or false, read.requirements or false,
      read.workflow_id or false, read.customer_id or false, read.lease_worker or false, read.worker_id or false,
      read.crashes or false}
  else
    f, long = values_of(key, size, LOOKED_AT)
  end
  local gone
  if not f then
    gone = 'job:' .. shown(id) .. ' is not a hash'
  elseif not f[1] and not f[2] and not f[3] and not long then
    gone = 'there is no hash for it'
  elseif SETTLED[f[3]] then
    gone = 'it is ' .. f[3] .. ' already'
  elseif RUNNING[f[3]] and given(f[7]) and f[7] == f[8] then
    local ends = redis.call('ZSCORE', LEASES, id)
    if ends and tonumber(ends) > now.ms then gone = 'it is running under a lease' end
  end
  if gone then
    redis.call('ZREM', PENDING, id)
    return 'gone', gone
  end
  local job = {service = f[1], workflow = f[5] or '', customer = f[6]}
  if not serves(job, asked.worker, asked.served) then return 'no' end
  local bad = bad_id(id)
  if bad then return 'gone', fail_bad_id(id, bad, now) end
  local requirements, wanted, verdict = f[4] or '', nil, nil
  local why = (long or size == 'large') and too_long(key, long)
  if not why and requirements ~= '' then
    wanted = asked.known[requirements]
    if wanted == nil then
      if #requirements > asked.bytes then return 'later' end
      asked.bytes = asked.bytes - #requirements
      wanted = decoded(requirements)
      asked.known[requirements] = wanted
    end
  end
  if not why then verdict, why = verdict_of(job, wanted, asked.worker) end
  if why then
    local ending = record(key, ENDING)
    redis.call('ZREM', PENDING, id)
    fail_for_good(id, ending, '', '', {type = 'validation_error', reason = 'invalid_payload',
      error = 'invalid_job: ' .. why}, count_of(ending.retry_count), now)
    return 'gone', 'invalid_job: ' .. why
  end
  if verdict == 'match' and count_of(f[9]) >= SUSPECT then
    if asked.suspect or not suspected(id, asked.process) then return 'no' end
    asked.suspect = asked.process
  end
  return verdict, {size = size, bytes = bytes or SMALL, flat = flat, job = read}
end

redis.register_function('emp_trio_claim', function(_, argv)
  if not is_zset(LEASES) then return not_zset(LEASES) end
  sets_of = {}
  local worker = cjson.decode(argv[1])
  local asked = {worker = worker, served = served_types(worker), bytes = DECODED, known = {},
    process = process_of(argv[8])}
  local machine, lease = argv[2], tonumber(argv[3])
  local rank, budget, how = tonumber(argv[4]), tonumber(argv[5]), tonumber(argv[6])
  local repeated, quiet = how % 2 == 1, how >= 2
  local now, jobs, dropped, room = clock(), {}, {}, ANSWERED
  local slot, last, page = 7, #argv, 1
  local function skip_answered()
    while repeated and slot <= last do
      local before = taken_before(argv[slot], argv[slot + 1], lease, now)
      if not before then return end
      jobs[#jobs + 1] = before
      slot = slot + 2
    end
  end
  skip_answered()
  while slot <= last and budget > 0 and room > 0 do
    local ids = redis.pcall('ZREVRANGE', PENDING, rank, rank + math.min(page, budget) - 1)
    if wrong_type(ids) then return not_zset(PENDING) end
    if #ids == 0 then
      rank = -1
      break
    end
    page = math.min(PAGE, page * 2)
    local matches = {}
    for _, id in ipairs(ids) do
      if slot > last or budget <= 0 or room <= 0 then break end
      if #id > LONGEST_ID then page = 1 end
      budget = budget - 1 - math.floor(#id / 2048)
      local verdict, more = inspect(id, asked, now)
      asked.whole = verdict == 'match'
      if verdict == 'match' then
        matches[#matches + 1] = {id, argv[slot], argv[slot + 1], more}
        room = room - more.bytes
        slot = slot + 2
        skip_answered()
      elseif verdict == 'gone' then
        dropped[#dropped + 1] = {shown(id), more}
        budget = budget - FAILING + 1
      elseif verdict == 'later' then
        budget = 0
      else
        rank = rank + 1
      end
    end
    take(matches, jobs, machine, lease, quiet, now)
  end
  return {slot <= last and rank or -1, now.ms, jobs, dropped}
end)
