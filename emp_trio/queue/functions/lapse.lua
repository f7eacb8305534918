-- A lease ran out: a crash, or a lapse? When it ends nobody can tell a process that was killed from one that stands still.
-- So its job goes back at once, charged with a crash, and when that very process speaks again the charge is taken back.
-- Where the server itself was away, nobody could renew: then no lease is reaped until its holder has had time to.
--
--   job:{id}              charged: the processes that its crashes are charged to, in their order, with blanks between
--   emp:charges:{nonce}   set     ids of the jobs that name this process there; CHARGES_TTL
--   emp:suspect:{nonce}   string  id of the job with SUSPECT crashes that this process runs; CHARGES_TTL
--   emp:heard             hash    at (ms): when a process of emp-trio spoke last; silence, grace (ms): what its reaper
--                                 takes for a gap of the server, and how long the holders then have
--   emp:grace             string  no lease is reaped while it stands
-- The nonce of a process is the first part of the tokens of its leases: {nonce}.{claim}/{attempt}.
local CHARGES_TTL, HEARD_TTL = 3600, 3600
local SILENCE, GRACE = 8000, 6000  -- ms, until a reaper has said better
local LONGEST_GRACE, LONGEST_PROCESS, MOST_CHARGES = 600000, 64, 1000

local function process_of(token) return token and string.match(token, '^(%w+)%.') end

-- A job that goes back into the queue was charged with a crash of the process that had it under token.
local function charge(id, token, charged)
  local nonce = process_of(token)
  if not nonce then return end
  redis.call('HSET', 'job:' .. id, 'charged', given(charged) and charged .. ' ' .. nonce or nonce)
  redis.pcall('SADD', 'emp:charges:' .. nonce, id)
  redis.pcall('EXPIRE', 'emp:charges:' .. nonce, CHARGES_TTL)
end

-- A process speaks: nothing that it is charged with was a crash.
local function refund(nonce)
  if not nonce or #nonce > LONGEST_PROCESS then return end
  local key = 'emp:charges:' .. nonce
  if redis.call('EXISTS', key) == 0 then return end
  local ids = redis.pcall('SRANDMEMBER', key, MOST_CHARGES)
  redis.call('DEL', key)
  for _, id in ipairs(ids.err and {} or ids) do
    local f = record('job:' .. id, {'status', 'crashes', 'charged'})
    local left, taken = {}, 0
    for one in string.gmatch(f.charged or '', '%w+') do
      if one == nonce then taken = taken + 1 else left[#left + 1] = one end
    end
    if taken > 0 and not SETTLED[f.status] then
      redis.call('HSET', 'job:' .. id, 'crashes', int(math.max(0, count_of(f.crashes) - taken)),
        'charged', table.concat(left, ' '))
    end
  end
end

-- A process that dies takes all of its jobs along, and one alone may be the cause. Jobs that have crashed so often that
-- another crash may be their end are run one at a time in each process: so the cause is found, and only the cause.
local SUSPECT = 2

-- Whether a process may run such a job now: then the job is noted as the one that it runs.
local function suspected(id, nonce)
  if not nonce then return true end
  local key = 'emp:suspect:' .. nonce
  local other = redis.pcall('GET', key)
  if type(other) == 'string' and other ~= id then
    local f = record('job:' .. other, {'status', 'lease_token', 'crashes'})
    if RUNNING[f.status] and process_of(f.lease_token) == nonce and count_of(f.crashes) >= SUSPECT then return false end
  end
  redis.call('SET', key, id, 'EX', CHARGES_TTL)
  return true
end

-- Somebody of ours speaks. Where nobody did for long although he was there, the server was away.
local function hear(now)
  local f = record('emp:heard', {'at', 'silence', 'grace'})
  local last = number(f.at)
  if last and now.ms - last > (number(f.silence) or SILENCE) then
    local grace = math.min(LONGEST_GRACE, math.max(1, number(f.grace) or GRACE))
    redis.call('SET', 'emp:grace', '1', 'PX', int(grace))
  end
  if type(redis.pcall('HSET', 'emp:heard', 'at', now.text)) == 'table' then redis.call('DEL', 'emp:heard') end
  redis.call('EXPIRE', 'emp:heard', HEARD_TTL)
end

-- ms for which no lease is to be reaped.
local function grace_left() return math.max(0, redis.call('PTTL', 'emp:grace')) end
