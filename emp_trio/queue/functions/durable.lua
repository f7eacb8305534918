-- A write that stands after all that was written before.

-- emp_trio_mark: writes something, so that WAIT and WAITAOF on the same connection wait for it, and with it for
--   whatever anybody has written before (both wait for the last write of their own connection only).   no ARGV
--   writes emp:durable (string, 60 s)   reply 'OK'
redis.register_function{function_name = 'emp_trio_mark', flags = {'allow-oom'}, callback = function()
  return redis.call('SET', 'emp:durable', '1', 'EX', 60)
end}
