-- The function library emp_trio: every transition of a job, one atomic call each.
-- The files are joined in the order of library.py; only ids.lua and record.lua come before this one.
--
-- Keys of the fleet (queue protocol, section 1; all of them are shared with other workers):
--   jobs:pending            zset    job id -> score S1; what may be claimed, highest score first
--   job:{id}                hash    the job; fields of ours beside the fleet's are listed below
--   job:{id}:progress       hash    last progress
--   progress:{id}           stream  one entry per claim
--   jobs:active:{wid}       hash    job id -> JSON of the job hash before the claim
--   jobs:completed          hash    job id -> JSON {success, data, completed_at}; 24 h
--   jobs:failed             hash    job id -> JSON {error, failed_at, retry_count}; 7 days
--   worker:{wid}            hash    one slot, as the fleet sees it; expires when its machine stops beating
--   worker:{wid}:heartbeat  string  ISO time, 60 s
--   workers:active          set     worker ids
--   worker:failure:..., worker:completion:..., workflow:failure:...   strings, attestations (section 1.8)
-- Keys of ours:
--   emp:leases              zset    job id -> time in ms at which its lease ends
--   emp:delayed             zset    job id -> time in ms at which it goes back to jobs:pending
--   emp:processes           zset    nonce of a process -> time in ms at which it last looked for what is due
--   emp:process:{nonce}     hash    what a process of emp-trio says of itself (see process.lua); 60 s
--   emp:charges:{nonce}, emp:heard, emp:grace   crashes that may prove to be lapses (see lapse.lua); an hour at most
-- Field of ours in worker:{wid}: process, the nonce of the process that has the slot
--
-- Whatever stands in these keys: a function reads and checks first, and writes when nothing can go wrong any more. What
-- it writes afterwards to lists that don't decide where a job is, is written by pcall.
--
-- Fields of ours in job:{id}:
--   lease_token    token of the present lease, '' when there is none; lease_worker: its slot
--   settled_token  token of the attempt that ended last, so that a repeated settle is recognised
--   attempt        claims so far; checkpoint: JSON of the upstream work
--   crashes        leases that ran out and were no lapse; charged: under which processes (see lapse.lua)
--   unstarted      leases that ran out before their attempt had begun
--   submit_token, retry_token   nonces of the submit and of the last new life, so that repeats are recognised
--
-- Times: ms are numbers of milliseconds since the epoch, ISO and LuaTime as in queue protocol 0.2.

local PENDING, LEASES, DELAYED, PROCESSES = 'jobs:pending', 'emp:leases', 'emp:delayed', 'emp:processes'
local COMPLETED_TTL, FAILED_TTL = 86400, 604800
local WORKER_TTL, HEARTBEAT_TTL = 120, 60

local function civil(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1
end

local function days_of(year, month, day)
  local y = month <= 2 and year - 1 or year
  local era = math.floor(y / 400)
  local yoe = y - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5) + day - 1
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

local function iso_of(ms)
  local s = math.floor(ms / 1000)
  local days = math.floor(s / 86400)
  local rest = s - days * 86400
  local year, month, day = civil(days)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, ms % 1000)
end

local function ms_of(iso)
  local y, mo, d, h, mi, s = string.match(iso or '', '^(%d%d%d%d)-(%d%d)-(%d%d)T(%d%d):(%d%d):(%d%d)')
  if not y then return nil end
  return (days_of(tonumber(y), tonumber(mo), tonumber(d)) * 86400 + h * 3600 + mi * 60 + s) * 1000
end

local function int(n) return string.format('%.0f', n) end

local this_second, this_second_iso, this_moment = '', '', {}

-- The time of one call: ms as number and as text, ISO, LuaTime. The date part is made once a second, the rest once a
-- millisecond: the table is shared.
local function clock()
  local t = redis.call('TIME')
  local micros = tonumber(t[2])
  local millis = math.floor(micros / 1000)
  local ms = tonumber(t[1]) * 1000 + millis
  if ms == this_moment.ms then return this_moment end
  if t[1] ~= this_second then
    this_second, this_second_iso = t[1], string.sub(iso_of(tonumber(t[1]) * 1000), 1, 20)
  end
  this_moment = {ms = ms, text = string.format('%s%03d', t[1], millis),
    iso = string.format('%s%03dZ', this_second_iso, millis), lua = string.format('%s.%06d', t[1], micros)}
  return this_moment
end

-- A set and non-empty hash value, else nil ('' is how the fleet writes an unset field).
local function given(value)
  if value and value ~= '' then return value end
  return nil
end

-- A number in a hash value, else nil; Lua reads nan, inf and hexadecimal too, which nobody means.
local function number(value)
  if not value or not string.find(value, '^%s*[+-]?%.?%d[%d.eE+-]*%s*$') then return nil end
  local n = tonumber(value)
  if n and math.abs(n) <= 2 ^ 53 then return n end
  return nil
end

-- A count in a hash value: a whole number from 0 to MOST. Anybody may have written it, and it is counted on from there.
local MOST = 1e9

local function count_of(value)
  local n = number(value)
  return n and math.min(MOST, math.max(0, math.floor(n))) or 0
end

-- Attempts a job has in total (queue protocol 4.7).
local function attempts_of(job)
  local n = count_of(job.max_retries)
  return n >= 1 and n or 3
end

-- HMGET that treats a key of another type like a missing hash. For fields that are short wherever a lease stands.
local function fields(key, ...) return read_hash('HMGET', key, ...) or {} end

-- Ids in a slot's list of active jobs: one or none, where nobody has put others there.
local function active_of(worker)
  local key = 'jobs:active:' .. worker
  local count = redis.pcall('HLEN', key)
  if type(count) ~= 'number' or count == 0 then return {} end
  if count <= 100 then return redis.call('HKEYS', key) end
  local ids = {}
  local page = redis.call('HSCAN', key, '0', 'COUNT', '100')[2]
  for i = 1, #page, 2 do ids[#ids + 1] = page[i] end
  return ids
end

-- Score S1 of a job (queue protocol 1.2). f: what its hash has of the fields SCORED; one that does not say when it was
-- made was made now.
local SCORED = {'priority', 'workflow_priority', 'workflow_datetime', 'created_at'}

local function score(f)
  local priority = number(f.workflow_priority)
  if not priority or priority == 0 then priority = number(f.priority) or 50 end
  local ms = number(f.workflow_datetime)
  if not ms or ms == 0 then ms = ms_of(f.created_at) or clock().ms end
  return int(priority * 1e15 - math.floor(ms / 1000))
end

-- ... from its own hash: the exact place the job had.
local function score_of(id) return score(record('job:' .. id, SCORED)) end

-- JSON of a message or record that a table stands for.
local function json(message)
  local clean = {}
  for name, value in pairs(message) do clean[name] = type(value) == 'string' and unicode(value) or value end
  return cjson.encode(clean)
end

local function publish(channel, message) redis.call('PUBLISH', channel, json(message)) end

-- JSON of a text. The messages that every job causes are put together from such pieces: that takes a fifth of the time
-- of encoding tables.
local function text(value) return cjson.encode(value) end

-- JSON of a slot's id, remembered: every job needs it several times.
local QUOTED, quotes, MOST_SLOTS = {}, 0, 10000

local function quoted(worker)
  local known = QUOTED[worker]
  if not known then
    quotes = quotes + 1
    if quotes > MOST_SLOTS then QUOTED, quotes = {}, 1 end
    known = text(worker)
    QUOTED[worker] = known
  end
  return known
end

-- What a slot says of its build, as a part of a JSON object; remembered from beat to beat, since every job needs it
-- twice.
local ABOUT, abouts = {}, 0

local function set_about(worker, version, built, info)
  if not ABOUT[worker] then
    abouts = abouts + 1
    if abouts > MOST_SLOTS then ABOUT, abouts = {}, 1 end
  end
  ABOUT[worker] = ',"version":' .. text(version) .. ',"build_timestamp":' .. text(built) .. ',"build_info":' .. text(info)
end

local function about(worker)
  if not ABOUT[worker] then
    local f = fields('worker:' .. worker, 'version', 'build_timestamp', 'build_info')
    if not f[1] then return '' end
    set_about(worker, f[1], f[2] or '', f[3] or '')
  end
  return ABOUT[worker]
end

-- A slot changes between idle and busy: its hash.
local function set_slot_state(worker, status, job, now)
  redis.pcall('HSET', 'worker:' .. worker, 'status', status, 'current_job_id', job,
    'last_status_change', status == 'busy' and now.lua or now.iso)
end

-- ... the fleet's message, and the aggregator's (queue protocol 2, 2.8).
local function say_slot_state(worker, machine, status, job, now)
  local before = status == 'busy' and 'idle' or 'busy'
  local who, what = quoted(worker), job == '' and '""' or text(job)
  redis.call('PUBLISH', 'worker_status', '{"worker_id":' .. who .. ',"old_status":"' .. before .. '","new_status":"' ..
    status .. '","current_job_id":' .. what .. ',"timestamp":' .. now.text .. '}')
  redis.call('PUBLISH', 'machine:' .. machine .. ':worker:' .. worker, '{"worker_id":' .. who ..
    ',"event_type":"worker_status_changed","timestamp":' .. now.text .. ',"data":{"status":"' .. status ..
    '","is_connected":true,"last_activity":' .. now.text .. ',"current_job_id":' .. (job ~= '' and what or 'null') ..
    about(worker) .. '}}')
end

local TOLD = {'service_required', 'customer_id', 'workflow_id', 'total_steps'}

-- A slot has taken a job (queue protocol 2.2, 2.3). job: at least the fields TOLD; at: LuaTime of the claim.
local function say_claimed(id, job, worker, machine, at, now)
  local both = '{"job_id":' .. text(id) .. ',"worker_id":' .. quoted(worker)
  local claimed = both .. ',"status":"claimed","message":"Job claimed by worker","claimed_at":' .. text(at) ..
    ',"timestamp":' .. int(math.floor(now.ms / 1000) * 1000)
  for _, name in ipairs(TOLD) do
    if job[name] then claimed = claimed .. ',"' .. name .. '":' .. (job[name] == '' and '""' or text(unicode(job[name]))) end
  end
  redis.call('PUBLISH', 'job_claimed', claimed .. '}')
  redis.call('PUBLISH', 'update_job_progress', both .. ',"progress":0,"timestamp":' .. now.text .. '}')
  say_slot_state(worker, machine, 'busy', id, now)
end

-- Progress of a job (queue protocol 2.3). Where the connector names no step, it is the job's in its workflow.
--   place: {current_step, total_steps} of the job
local function say_progress(id, worker, place, percent, status, message, step, total, now)
  local named, of = step ~= '', tonumber(total) or 0
  if not named then step = number(place[1]) end
  if of == 0 then of = place[2] and number(place[2]) or 0 end
  redis.call('PUBLISH', 'update_job_progress', '{"job_id":' .. text(id) .. ',"worker_id":' .. quoted(worker) ..
    ',"progress":' .. percent .. ',"status":"' .. status .. '","message":' .. (message == '' and '""' or text(message)) ..
    ',"current_step":' .. (named and text(step) or step and int(step) or '""') .. ',"total_steps":' .. (of == 0 and '0' or int(of)) ..
    ',"estimated_completion":"","timestamp":' .. now.text .. '}')
end

-- Whether worker still holds job under token. API and old workers write status and worker_id without knowing of
-- leases, so all three must agree. Returns held, status, settled_token, the lease's slot, {current_step, total_steps}.
local function held(id, token)
  local f = fields('job:' .. id, 'lease_token', 'lease_worker', 'worker_id', 'status', 'settled_token', 'current_step',
    'total_steps')
  local ours = f[1] == token and f[2] and f[2] == f[3] and (f[4] == 'assigned' or f[4] == 'in_progress')
  return ours, f[4] or '', f[5] or '', f[2] or '', {f[6], f[7]}
end

-- A lease stands until then, in ms. Where there was none, somebody may have put the job into another list of ours.
local function hold(id, ends)
  if redis.call('ZADD', LEASES, int(ends), id) == 1 then
    redis.pcall('ZREM', PENDING, id)
    redis.pcall('ZREM', DELAYED, id)
  end
end

-- Takes a job off a slot's list, if there is a slot.
local function drop_active(id, worker)
  if given(worker) then redis.pcall('HDEL', 'jobs:active:' .. worker, id) end
end

-- A lease is over. By pcall: where emp:leases is broken, there is no lease that could be in the way.
local function drop_lease(id, worker)
  redis.pcall('ZREM', LEASES, id)
  drop_active(id, worker)
end

-- Back into the queue: at once, or at now + delay ms. Where jobs:pending is not a zset the job is kept among the delayed
-- ones and tried again later, and the other way round; can_requeue says beforehand whether one of them will do.
local BROKEN_PAUSE = 60000

local function can_requeue() return is_zset(PENDING) or is_zset(DELAYED) end

local function requeue(id, delay, now)
  local pending = {PENDING, score_of(id)}
  local later = {DELAYED, int(now.ms + (delay > 0 and delay or BROKEN_PAUSE))}
  for _, place in ipairs(delay > 0 and {later, pending} or {pending, later}) do
    if type(redis.pcall('ZADD', place[1], place[2], id)) == 'number' then
      redis.pcall('ZREM', place == later and PENDING or DELAYED, id)  -- somebody may have put it there meanwhile
      return
    end
  end
end

redis.register_function{function_name = 'emp_trio_version', callback = function() return '@VERSION@' end,
  flags = {'no-writes', 'allow-oom'}}
