"""A worker as the fleet's others are, after the queue protocol (3.2, 3.3, 4.5 to 4.7): it claims in one step, knows of
no leases, and ends a job by one command after the other. Usage: python -m tests.chaos.original URL WORKER TYPE
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from tests.queue.support import iso, old_score
from tests.worker.support import client

_PAUSE = 0.05  # seconds between two looks at an empty queue
_CLAIM = """
for _, id in ipairs(redis.call('ZREVRANGE', 'jobs:pending', 0, 99)) do
  local key = 'job:' .. id
  local flat, job = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do job[flat[i]] = flat[i + 1] end
  if job.service_required == ARGV[2] and redis.call('ZREM', 'jobs:pending', id) == 1 then
    local time = redis.call('TIME')
    local at = time[1] .. '.' .. string.format('%06d', time[2])
    redis.call('HMSET', key, 'status', 'assigned', 'worker_id', ARGV[1], 'assigned_at', at)
    redis.call('HSET', 'jobs:active:' .. ARGV[1], id, cjson.encode(job))
    redis.call('HMSET', 'worker:' .. ARGV[1], 'status', 'busy', 'current_job_id', id, 'last_status_change', at)
    redis.call('PUBLISH', 'job_claimed', cjson.encode({job_id = id, worker_id = ARGV[1], status = 'claimed'}))
    redis.call('PUBLISH', 'update_job_progress', cjson.encode({job_id = id, worker_id = ARGV[1], progress = 0}))
    redis.call('XADD', 'progress:' .. id, '*', 'job_id', id, 'worker_id', ARGV[1], 'status', 'assigned')
    return cjson.encode({jobId = id, job = job})
  end
end
"""


def main(url: str, worker: str, job_type: str) -> None:
    """Work until killed."""
    db = client(url)
    claim = db.register_script(_CLAIM)
    while True:
        db.setex(f"worker:{worker}:heartbeat", 60, iso())
        found = claim(args=[worker, job_type])
        if found is None:
            time.sleep(_PAUSE)
        else:
            claimed = json.loads(found)
            _work(db, worker, claimed["jobId"], claimed["job"])


def _work(db: Any, worker: str, job_id: str, job: dict[str, str]) -> None:
    payload = json.loads(job["payload"])
    db.hset(f"job:{job_id}", mapping={"status": "in_progress", "started_at": iso()})
    time.sleep(payload["seconds"])
    retries = int(job["retry_count"])
    if payload.get("bad") or retries < payload.get("fails", 0):
        _fail(db, worker, job_id, job, retries + 1, again=not payload.get("bad"))
    else:
        _complete(db, worker, job_id)
    db.hdel(f"jobs:active:{worker}", job_id)
    db.hset(f"worker:{worker}", mapping={"status": "idle", "current_job_id": ""})


def _complete(db: Any, worker: str, job_id: str) -> None:
    result, done = {"success": True, "data": {"by": worker}}, iso()
    record = {"job_id": job_id, "worker_id": worker, "status": "completed", "completed_at": done}
    db.set(f"worker:completion:step-id:{job_id}:attempt:1", json.dumps(record))
    db.hset(f"job:{job_id}", mapping={"status": "completed", "completed_at": done})
    db.hset("jobs:completed", job_id, json.dumps({"success": True, "data": result, "completed_at": done}))
    db.expire("jobs:completed", 86400)
    message = record | {"progress": 100, "result": result, "timestamp": round(time.time() * 1000)}
    db.publish("complete_job", json.dumps(message))


def _fail(db: Any, worker: str, job_id: str, job: dict[str, str], count: int, *, again: bool) -> None:
    failed = {"retry_count": count, "last_failed_worker": worker, "failed_at": iso()}
    if again and count < int(job["max_retries"]):
        db.hset(f"job:{job_id}", mapping=failed | {"status": "pending", "worker_id": "", "assigned_at": ""})
        db.zadd("jobs:pending", {job_id: old_score(float(job["priority"]), time.time() * 1000)})
        return
    db.hset(f"job:{job_id}", mapping=failed | {"status": "failed"})
    db.hset("jobs:failed", job_id, json.dumps({"error": "failed", "failed_at": iso(), "retry_count": count}))
    message = {"job_id": job_id, "worker_id": worker, "status": "failed", "error": "failed", "can_retry": False}
    db.publish("job_failed", json.dumps(message))


if __name__ == "__main__":
    main(*sys.argv[1:])
