-- Reading a job's hash. Whoever can write to Redis can put anything there: of a long value only the length is looked at.

local LONGEST = 16384  -- bytes of a value that a function reads, requirements among them
local SMALL = 65536    -- bytes of memory of a hash that is read in one piece
local FEW = 256        -- fields of one
local TINY = 4096      -- bytes of one that can't have more fields than that: each takes 16 at the least

-- Fields that are read of a job with long values; what is not named here does not matter to anybody.
local KNOWN = {'id', 'service_required', 'job_type', 'priority', 'payload', 'requirements', 'customer_id', 'created_at',
  'status', 'retry_count', 'max_retries', 'workflow_id', 'workflow_priority', 'workflow_datetime', 'current_step',
  'total_steps', 'job_trace_id', 'job_span_id', 'workflow_trace_id', 'workflow_span_id', 'ctx', 'worker_id',
  'assigned_at', 'started_at', 'completed_at', 'failed_at', 'last_failed_worker', 'error', 'cancelled_at', 'deadline',
  'lease_token', 'lease_worker', 'settled_token', 'attempt', 'crashes', 'charged', 'unstarted', 'checkpoint', 'submit_token',
  'retry_token'}

-- What a refused read means: a key of another type is nil, everything else (a missing right) ends the call.
local function wrong_type(reply)
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, '^WRONGTYPE') then error(reply) end
    return true
  end
  return false
end

-- The reply to a command that reads a hash, or nil where the key is of another type.
local function read_hash(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if wrong_type(reply) then return nil end
  return reply
end

-- 'none', 'other' (a key of another type), 'small' (no value can be long), 'medium' (may be read in one piece) or 'large';
-- and its bytes of memory, where it may be read in one piece. A key of another type may also be 'small'.
local function size_of(key)
  local tiny = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', FEW)  -- looks at so many fields, of a tiny hash at all
  if not tiny then return 'none' end
  if type(tiny) == 'number' and tiny <= TINY then return 'small', tiny end
  local count = redis.pcall('HLEN', key)
  if wrong_type(count) then return 'other' end
  if count == 0 then return 'none' end
  if count <= FEW then
    local bytes = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', '0')
    if type(bytes) == 'number' and bytes <= SMALL then return bytes <= LONGEST and 'small' or 'medium', bytes end
  end
  return 'large'
end

-- Values of the fields, false for an unset one and for a long one, or nil where the key is of another type; and the name
-- of the first long one, or nil.
local function values_of(key, size, names)
  if size == 'none' then return {}, nil end
  if size == 'other' then return nil, nil end
  if size == 'small' then return read_hash('HMGET', key, unpack(names)), nil end
  local readable, long = names, nil
  if size == 'large' then
    readable = {}
    for i, name in ipairs(names) do
      if redis.call('HSTRLEN', key, name) > LONGEST then
        readable[i], long = '', long or name  -- a field of no name, which is unset
      else
        readable[i] = name
      end
    end
  end
  local values = redis.call('HMGET', key, unpack(readable))
  if long then
    for i, name in ipairs(names) do
      if readable[i] ~= name then values[i] = false end
    end
  end
  for i = 1, #names do
    if values[i] and #values[i] > LONGEST then values[i], long = false, long or names[i] end
  end
  return values, long
end

-- The same as a table by name, with the size as its second value.
local function record(key, names)
  local size = size_of(key)
  local values, found = values_of(key, size, names) or {}, {}
  for i, name in ipairs(names) do found[name] = values[i] or nil end
  return found, size
end

-- A whole job as {field, value, ...}, and the names of the long fields, which are left out.
local function whole(key, size)
  if size ~= 'large' then return redis.call('HGETALL', key), {} end
  local flat, left = {}, {}
  for _, name in ipairs(KNOWN) do
    if redis.call('HSTRLEN', key, name) > LONGEST then
      left[#left + 1] = name
    else
      local value = redis.call('HGET', key, name)
      if value then flat[#flat + 1], flat[#flat + 2] = name, value end
    end
  end
  return flat, left
end

-- Whether a key is a sorted set or missing.
local function is_zset(key) return not wrong_type(redis.pcall('ZCARD', key)) end

local function not_zset(key)
  return redis.error_reply('WRONGTYPE ' .. key .. ' is not a sorted set: nothing was changed; repair or delete that key')
end
