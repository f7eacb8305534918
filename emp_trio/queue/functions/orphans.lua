-- emp_trio_adopt: jobs of a worker that knows nothing of leases and is gone for good (queue protocol 4.10, 7.2). Called
-- by machines that were told to; the caller has seen that its heartbeat was gone for long.
--   ARGV  1 worker id   2 crashes after which a job fails for good   3 jobs, at most
--   reply {requeued ids, {failed id, reason} each}; nothing while the worker's heartbeat stands
-- Left alone: jobs under a lease (the reaper's), jobs that ended or that another worker has.
redis.register_function{function_name = 'emp_trio_adopt', flags = {'allow-oom'}, callback = function(_, argv)
  local worker, max_crashes, most = argv[1], tonumber(argv[2]), tonumber(argv[3])
  local now, requeued, failed = clock(), {}, {}
  if redis.call('EXISTS', 'worker:' .. worker .. ':heartbeat') == 1 then return {requeued, failed} end
  for _, list in ipairs({PENDING, LEASES}) do
    if not is_zset(list) then return not_zset(list) end
  end
  for _, id in ipairs(active_of(worker)) do
    if #requeued + #failed >= most then break end
    local f = record('job:' .. id, ENDING)
    if RUNNING[f.status] and f.worker_id == worker and not redis.call('ZSCORE', LEASES, id) and
      not redis.call('ZSCORE', PENDING, id) then
      local why = end_of_worker(id, f, worker, 1, true, max_crashes, 'is gone: nothing was heard of it for long', now)
      if why then
        failed[#failed + 1] = {id, why}
      else
        requeued[#requeued + 1] = id
      end
      drop_active(id, worker)
    end
  end
  return {requeued, failed}
end}
