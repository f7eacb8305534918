-- One process of emp-trio among the others: alive, leaving, gone; and whether another one has its slots.
--
--   emp:process:{nonce}    hash  machine, where (host and pid), started (ms), last (ms), seen (ms), take_over, leaving; 60 s
--   worker:{wid}           hash  field process: nonce of the process that has the slot now
-- started and last are this server's time. seen is the time in the last reply that the process had read when it said
-- this: seen >= t proves that it was alive after t, which last does not (a call of a dead one may be executed late).

local LONGEST_NONCE = 64

-- What a process says of itself, or nil where it was not heard of for a minute.
local function process_info(nonce)
  local f = record('emp:process:' .. nonce, {'machine', 'where', 'started', 'seen', 'take_over', 'leaving'})
  local started = number(f.started)
  if not started then return nil end
  return {nonce, f.machine or '', f.where or '', started, number(f.seen) or 0, f.take_over == '1' and 1 or 0,
    f.leaving == '1' and 1 or 0}
end

-- The nonce of the process that has a slot, or nil.
local function holder_of(worker)
  local length = redis.pcall('HSTRLEN', 'worker:' .. worker, 'process')
  if wrong_type(length) or length == 0 or length > LONGEST_NONCE then return nil end
  return given(fields('worker:' .. worker, 'process')[1])
end

-- Whether a process that goes on, other than nonce, has this slot.
local function of_another(worker, nonce)
  local holder = holder_of(worker)
  if not holder or holder == nonce then return false end
  local info = process_info(holder)
  return info ~= nil and info[7] == 0
end

-- A process does not take jobs any more, nor does it keep alive what it has taken out of the lists: a call of its that
-- is under way changes nothing of that.
local function leaves(nonce)
  redis.pcall('HSET', 'emp:process:' .. nonce, 'leaving', '1')
  redis.call('EXPIRE', 'emp:process:' .. nonce, HEARTBEAT_TTL)
end

-- emp_trio_alive: a process is alive, and so are its slots.
--   ARGV  1 nonce   2 machine id   3 host and pid   4 '1': it takes over   5 '1': it leaves   6 ms it has seen, or 0
--         7 ms of silence after which it counts as newly started   8 number of suspects   9.. their nonces, worker ids
--   reply {ms, ms at which it started, whether it takes over, {worker id, nonce, ...} of slots that another process had,
--         {nonce, machine, where, started, seen, take_over, leaving} of each of those and of the suspects}
redis.register_function{function_name = 'emp_trio_alive', flags = {'allow-oom'}, callback = function(_, argv)
  local nonce, leaving, now = argv[1], argv[5], clock()
  local key = 'emp:process:' .. nonce
  local before = record(key, {'started', 'last', 'take_over', 'leaving'})
  local started, last, take_over = number(before.started), number(before.last), before.take_over == '1' and '1' or '0'
  if not started or not last or now.ms - last > tonumber(argv[7]) then
    take_over = started and '0' or argv[4]  -- who comes back after a silence takes nothing from those who came since
    started = now.ms
  end
  if before.leaving == '1' then leaving = '1' end
  hear(now)
  refund(nonce)
  redis.pcall('HSET', key, 'machine', argv[2], 'where', argv[3], 'started', int(started), 'last', now.text,
    'seen', argv[6], 'take_over', take_over, 'leaving', leaving)
  redis.call('EXPIRE', key, HEARTBEAT_TTL)
  local others, found, asked = {}, {}, {}
  local function look_up(other)
    if asked[other] then return end
    asked[other] = true
    local info = process_info(other)
    if info then others[#others + 1] = info end
  end
  local first = 9 + tonumber(argv[8])
  for i = 9, first - 1 do look_up(argv[i]) end
  for i = first, #argv do
    local worker, holder = 'worker:' .. argv[i], holder_of(argv[i])
    if holder and holder ~= nonce then
      found[#found + 1] = argv[i]
      found[#found + 1] = holder
      look_up(holder)
    end
    if leaving ~= '1' and holder ~= nonce then
      redis.pcall('HSET', worker, 'process', nonce)
      redis.call('EXPIRE', worker, WORKER_TTL)
    end
    if leaving ~= '1' or holder == nonce then
      redis.call('SET', worker .. ':heartbeat', now.iso, 'EX', HEARTBEAT_TTL)
    end
  end
  return {now.ms, started, take_over == '1' and 1 or 0, found, others}
end}

-- emp_trio_ended: a process has ended.   ARGV 1 nonce
redis.register_function{function_name = 'emp_trio_ended', flags = {'allow-oom'}, callback = function(_, argv)
  refund(argv[1])
  redis.call('DEL', 'emp:heard')  -- the others speak again before long
  return redis.call('DEL', 'emp:process:' .. argv[1])
end}
