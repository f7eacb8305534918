-- Matching: may this machine's slots run that job? The fleet's rules (queue protocol 3.4) to the letter, false counting
-- as absent as it does there, with its runtime errors turned into the verdict 'poison' (3.5).

-- The job types a worker serves, as a set (rule 3).
local function served_types(worker)
  local served = {}
  if type(worker.job_service_required_map) == 'table' then
    for _, job_type in ipairs(worker.job_service_required_map) do served[job_type] = true end
  end
  return served
end

-- Whether a list has a value. Lists of a worker are asked by many jobs, and by each of a job's values: each is made a
-- set once in a call (sets_of is emptied at its beginning).
local sets_of = {}

local function contains(list, value)
  local set = sets_of[list]
  if not set then
    set = {}
    for _, item in ipairs(list) do
      if item == item then set[item] = true end
    end
    sets_of[list] = set
  end
  return set[value] ~= nil
end

local function is_array(value)
  return type(value) == 'table' and (next(value) == nil or value[1] ~= nil)
end

-- Rule 9: required array within worker array, scalar in worker array, number at most, else equality.
local function satisfies(want, have)
  if have == nil then return false end
  if is_array(want) then
    if not is_array(have) then return false end
    for _, item in ipairs(want) do
      if not contains(have, item) then return false end
    end
    return true
  end
  if is_array(have) then return contains(have, want) end
  if type(want) == 'number' then return type(have) == 'number' and want <= have end
  return want == have
end

-- Rules 8 and 10: any other key is a capability of the worker, dotted keys walk into it.
local function capable(key, want, worker)
  local have = worker
  for part in string.gmatch(key, '[^.]+') do
    if type(have) ~= 'table' then return false end
    have = have[part]
  end
  if type(want) ~= 'table' or is_array(want) then return satisfies(want, have) end
  if type(have) ~= 'table' then return false end
  for sub_key, sub_want in pairs(want) do
    if not satisfies(sub_want, have[sub_key]) then return false end
  end
  return true
end

local SPECIAL = {hardware = true, models = true, customer_isolation = true, service_type = true}
local HARDWARE = {'gpu_memory_gb', 'cpu_cores', 'ram_gb'}

-- Why nobody can ever match these requirements without a runtime error, or nil.
local function poison_in(positive, negative)
  if type(positive) ~= 'table' or positive[1] ~= nil then
    return 'requirements.positive_requirements is not an object'
  end
  local hardware = positive.hardware
  if hardware and type(hardware) ~= 'table' and type(hardware) ~= 'string' then
    return 'requirements.hardware is not an object'
  end
  for _, key in ipairs(HARDWARE) do
    local want = type(hardware) == 'table' and hardware[key]
    if want and want ~= 'all' and type(want) ~= 'number' then
      return 'requirements.hardware.' .. key .. ' is not a number'
    end
  end
  for _, model in ipairs(type(positive.models) == 'table' and positive.models or {}) do
    if type(model) ~= 'string' and type(model) ~= 'number' then return 'requirements.models is not a list of names' end
  end
  if not negative then return nil end
  if type(negative) ~= 'table' then return 'requirements.negative_requirements is not an object' end
  if negative.hardware ~= nil and type(negative.hardware) ~= 'table' then
    return 'requirements.negative_requirements.hardware is not an object'
  end
  return nil
end

local function part(worker, name) return type(worker[name]) == 'table' and worker[name] or {} end

local function has_hardware(wanted, have)
  for _, key in ipairs(HARDWARE) do
    local want = type(wanted) == 'table' and wanted[key]
    if want and want ~= 'all' and not (type(have[key]) == 'number' and have[key] >= want) then return false end
  end
  return true
end

-- customer is false where the hash has no such field: then no list applies, as in the fleet ('' is an id like any other).
local function takes_customer(isolation, customer, access)
  if not isolation then return true end
  if isolation == 'strict' and access.isolation ~= 'strict' then return false end
  if not customer then return true end
  local allowed, denied = access.allowed_customers, access.denied_customers
  if type(allowed) == 'table' and not contains(allowed, customer) then return false end
  return not (type(denied) == 'table' and contains(denied, customer))
end

local function has_models(models, have)
  if type(models) ~= 'table' then return true end
  if have and type(have) ~= 'table' then return false end
  for _, model in ipairs(models) do
    if not contains(have or {}, model) then return false end
  end
  return true
end

local function has_all(wanted, job, worker)
  if not has_hardware(wanted.hardware, part(worker, 'hardware')) then return false end
  if not takes_customer(wanted.customer_isolation, job.customer, part(worker, 'customer_access')) then return false end
  if not has_models(wanted.models, part(worker, 'models')[job.service]) then return false end
  for key, want in pairs(wanted) do
    if not SPECIAL[key] and not capable(key, want, worker) then return false end
  end
  return true
end

local function has_any(unwanted, worker)
  for key, want in pairs(unwanted) do
    if key == 'hardware' then
      local have = part(worker, 'hardware')
      for name, value in pairs(want) do
        if have[name] and satisfies(value, have[name]) then return true end
      end
    elseif capable(key, want, worker) then
      return true
    end
  end
  return false
end

-- What requirements text says: a table; nil where it says nothing or is no JSON, as in the fleet; or false where it is
-- JSON that is no object: the fleet's function fails for everybody on a scalar, and a list can never match.
local function decoded(text)
  local ok, wanted = pcall(cjson.decode, text)
  if not ok then return nil end
  if type(wanted) ~= 'table' or wanted[1] ~= nil then return false end
  return wanted
end

-- Whether a worker serves jobs of this type and workflow at all. job: {service = string, or false where the hash has no
-- such field (any worker will do), workflow}
local function serves(job, worker, served)
  local bound = worker.workflow_id
  if type(bound) == 'string' and bound ~= '' and job.workflow ~= bound then return false end
  return not job.service or served[job.service] == true
end

-- verdict 'match' | 'no' | 'poison', reason, for a job that the worker serves. worker: decoded capabilities;
-- wanted: what decoded says of its requirements; job: as above, and customer (string, or false without such a field)
local function verdict_of(job, wanted, worker)
  if wanted == nil then return 'match' end
  if not wanted then return 'poison', 'requirements is not a JSON object' end
  local positive, negative = wanted.positive_requirements or wanted, wanted.negative_requirements
  local why = poison_in(positive, negative)
  if why then return 'poison', why end
  if not has_all(positive, job, worker) then return 'no' end
  if negative and has_any(negative, worker) then return 'no' end
  return 'match'
end
