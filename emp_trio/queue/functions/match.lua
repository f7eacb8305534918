-- Matching: may this machine's slots run that job? The fleet's rules (queue protocol 3.4), with its runtime errors
-- turned into the verdict 'poison' (3.5).

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local function is_object(value)
  return type(value) == 'table' and #value == 0 and next(value) ~= nil
end

-- Rule 9: required array within worker array, scalar in worker array, number at most, else equality.
local function satisfies(want, have)
  if have == nil or have == cjson.null then return false end
  if type(want) == 'table' then
    if type(have) ~= 'table' then return false end
    for _, item in ipairs(want) do
      if not contains(have, item) then return false end
    end
    return true
  end
  if type(have) == 'table' then return contains(have, want) end
  if type(want) == 'number' and type(have) == 'number' then return want <= have end
  return want == have
end

local function walk(worker, path)
  local value = worker
  for part in string.gmatch(path, '[^.]+') do
    if type(value) ~= 'table' then return nil end
    value = value[part]
  end
  return value
end

-- Rules 8 and 10: any other key is a capability of the worker, dotted keys walk into it.
local function capable(key, want, worker)
  local have = worker[key]
  if have == nil then have = walk(worker, key) end
  if not is_object(want) then return satisfies(want, have) end
  if type(have) ~= 'table' then return false end
  for sub_key, sub_want in pairs(want) do
    if not satisfies(sub_want, have[sub_key]) then return false end
  end
  return true
end

local SPECIAL = {hardware = true, models = true, customer_isolation = true, service_type = true}
local HARDWARE = {'gpu_memory_gb', 'cpu_cores', 'ram_gb'}

local function check_hardware(hardware, worker)
  if hardware == nil then return 'match' end
  if type(hardware) == 'string' then return 'match' end
  if type(hardware) ~= 'table' then return 'poison', 'requirements.hardware is not an object' end
  local have = type(worker.hardware) == 'table' and worker.hardware or {}
  for _, key in ipairs(HARDWARE) do
    local want = hardware[key]
    if want ~= nil and want ~= 'all' then
      if type(want) ~= 'number' then return 'poison', 'requirements.hardware.' .. key .. ' is not a number' end
      if type(have[key]) ~= 'number' or have[key] < want then return 'no' end
    end
  end
  return 'match'
end

local function check_customer(isolation, customer, worker)
  if isolation == nil then return true end
  local access = type(worker.customer_access) == 'table' and worker.customer_access or {}
  if isolation == 'strict' and access.isolation ~= 'strict' then return false end
  if type(access.allowed_customers) == 'table' and not contains(access.allowed_customers, customer) then return false end
  return not (type(access.denied_customers) == 'table' and contains(access.denied_customers, customer))
end

local function check_models(models, service, worker)
  if models == nil or models == cjson.null or models == 'all' then return true end
  local have = type(worker.models) == 'table' and worker.models[service] or nil
  if type(models) ~= 'table' then models = {models} end
  for _, model in ipairs(models) do
    if type(have) ~= 'table' or not contains(have, model) then return false end
  end
  return true
end

local function check_positive(wanted, job, worker)
  local verdict, why = check_hardware(wanted.hardware, worker)
  if verdict ~= 'match' then return verdict, why end
  if not check_customer(wanted.customer_isolation, job.customer, worker) then return 'no' end
  if not check_models(wanted.models, job.service, worker) then return 'no' end
  for key, want in pairs(wanted) do
    if type(key) == 'string' and not SPECIAL[key] and not capable(key, want, worker) then return 'no' end
  end
  return 'match'
end

local function check_negative(unwanted, worker)
  for key, want in pairs(unwanted) do
    if key == 'hardware' then
      local have = type(worker.hardware) == 'table' and worker.hardware or {}
      for part, value in pairs(type(want) == 'table' and want or {}) do
        if satisfies(value, have[part]) then return 'no' end
      end
    elseif capable(key, want, worker) then
      return 'no'
    end
  end
  return 'match'
end

-- Whether requirements text is JSON that is no object or array: the fleet's function fails for everybody on it.
local function not_an_object(text)
  local first = string.match(text, '^%s*(.)')
  if first == nil or first == '{' or first == '[' then return false end
  return (pcall(cjson.decode, text))
end

-- verdict 'match' | 'no' | 'poison', reason. worker: decoded capabilities with .services, a set of job types.
-- job: {service = string or false, requirements = text, workflow, customer}
local function verdict_of(job, worker)
  local text = job.requirements
  if text ~= '' and not_an_object(text) then return 'poison', 'requirements is not a JSON object' end
  local bound = worker.workflow_id
  if type(bound) == 'string' and bound ~= '' and job.workflow ~= bound then return 'no' end
  if job.service and not worker.services[job.service] then return 'no' end
  if text == '' then return 'match' end
  local ok, wanted = pcall(cjson.decode, text)
  if not ok then return 'match' end
  local positive, negative = wanted.positive_requirements, wanted.negative_requirements
  if positive == nil or (positive == cjson.null and negative == nil) then return check_positive(wanted, job, worker) end
  if type(positive) ~= 'table' then return 'poison', 'requirements.positive_requirements is not an object' end
  local verdict, why = check_positive(positive, job, worker)
  if verdict ~= 'match' or negative == nil then return verdict, why end
  if type(negative) ~= 'table' then return 'poison', 'requirements.negative_requirements is not an object' end
  return check_negative(negative, worker)
end
