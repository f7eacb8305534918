"""Jobs of the fleet's other workers that died for good: put back by machines that were told to, and by no other."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.cli import _with_values
from emp_trio.queue.orphans import gone_since
from tests.queue.support import Ear, iso
from tests.worker.processes import open_worker
from tests.worker.support import Play, eventually, open_machine, submit

DEAD = "ts-worker-comfyui-0"


def claimed_by_old_worker(db: Any, worker: str = DEAD, job_type: str = "elsewhere", **fields: Any) -> str:
    """A job that a TypeScript worker took and runs (queue protocol 3.3, 4.5)."""
    job_id = submit(db, job_type, tell=False)
    before = db.hgetall(f"job:{job_id}")
    db.zrem("jobs:pending", job_id)
    now = {"status": "in_progress", "worker_id": worker, "assigned_at": "1.000000", "started_at": iso(), **fields}
    db.hset(f"job:{job_id}", mapping=now)
    db.hset(f"jobs:active:{worker}", job_id, json.dumps(before))
    return job_id


async def test_jobs_of_a_dead_worker_go_back_with_an_attempt_counted(valkey: str, db: Any, ear: Ear) -> None:
    job_id = claimed_by_old_worker(db, workflow_id="wf")
    async with open_machine(valkey, {"t": Play()}, adopt_orphans=0.4):
        await eventually(lambda: db.zscore("jobs:pending", job_id))
        job = db.hgetall(f"job:{job_id}")
    assert (job["status"], job["worker_id"], job["retry_count"], job["last_failed_worker"]) == (
        "pending",
        "",
        "1",
        DEAD,
    )
    assert DEAD in job["error"]
    assert db.exists(f"jobs:active:{DEAD}") == 0
    assert db.exists(f"worker:failure:job-id:wf:step-id:{job_id}:attempt:1")
    assert ear.heard("job_failed") == []


async def test_the_last_attempt_fails_for_good(valkey: str, db: Any, ear: Ear) -> None:
    job_id = claimed_by_old_worker(db, retry_count="2")
    async with open_machine(valkey, {"t": Play()}, adopt_orphans=0.4):
        await eventually(lambda: db.hget(f"job:{job_id}", "status") == "failed")
    [(_, message)] = ear.heard("job_failed")
    assert (message["job_id"], message["worker_id"], message["can_retry"]) == (job_id, DEAD, False)
    assert db.zscore("jobs:pending", job_id) is None
    assert json.loads(db.hget("jobs:failed", job_id))["retry_count"] == 3


async def test_an_adopted_job_runs_here(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, adopt_orphans=0.3):
        job_id = claimed_by_old_worker(db, job_type="t")
        await eventually(lambda: db.hget(f"job:{job_id}", "status") == "completed")
    assert play.attempts[0].job.retry_count == 1


async def test_what_is_not_orphaned_is_left_alone(valkey: str, db: Any) -> None:
    alive = claimed_by_old_worker(db, "alive")
    db.set("worker:alive:heartbeat", iso())
    settled = claimed_by_old_worker(db, status="completed")
    taken = claimed_by_old_worker(db)
    db.hset(f"job:{taken}", "worker_id", "another")
    leased = claimed_by_old_worker(db, lease_token="n/1", lease_worker=DEAD)
    db.zadd("emp:leases", {leased: (time.time() + 3600) * 1000})
    orphan = claimed_by_old_worker(db)
    before = {job_id: db.hgetall(f"job:{job_id}") for job_id in (alive, settled, taken, leased)}
    async with open_machine(valkey, {"t": Play()}, adopt_orphans=0.4):
        await eventually(lambda: db.zscore("jobs:pending", orphan))
        assert {job_id: db.hgetall(f"job:{job_id}") for job_id in before} == before
    assert db.zrange("jobs:pending", 0, -1) == [orphan]
    assert set(db.hkeys(f"jobs:active:{DEAD}")) == {settled, taken, leased}
    db.delete("emp:leases")


async def test_nobody_adopts_unasked(valkey: str, db: Any) -> None:
    job_id = claimed_by_old_worker(db)
    async with open_machine(valkey, {"t": Play()}) as machine:
        assert machine.adopter is None
    assert db.hget(f"job:{job_id}", "status") == "in_progress"


async def test_the_option_of_the_worker(valkey: str, db: Any) -> None:
    job_id = claimed_by_old_worker(db)
    async with open_worker(valkey, "--workers", "mock:1", "--adopt-orphans", "1") as worker:
        assert (await worker.until("job.adopted"))["job"] == job_id
        worker.signal(signal.SIGTERM)
        assert await worker.code() == 0
    assert db.zscore("jobs:pending", job_id)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["worker", "--adopt-orphans"], ["worker", "--adopt-orphans=60"]),
        (["worker", "--adopt-orphans", "--embedded"], ["worker", "--adopt-orphans=60", "--embedded"]),
        (["worker", "--adopt-orphans", "5"], ["worker", "--adopt-orphans", "5"]),
        (["worker", "--adopt-orphans=5"], ["worker", "--adopt-orphans=5"]),
        ([], []),
    ],
)
def test_the_seconds_of_the_option_may_be_left_out(words: list[str], read: list[str]) -> None:
    assert _with_values(words) == read


LOOKS = st.lists(st.sets(st.sampled_from((b"a", b"b", b"c"))), min_size=1, max_size=12)


@given(LOOKS)
def test_a_worker_counts_as_gone_from_the_first_of_an_unbroken_row_of_looks(looks: list[set[bytes]]) -> None:
    gone: dict[bytes, float] = {}
    for now, absent in enumerate(looks):
        gone = gone_since(gone, absent, float(now))
        assert gone.keys() == absent
        for worker, since in gone.items():
            assert all(worker in look for look in looks[int(since) : now + 1])
            assert since == 0 or worker not in looks[int(since) - 1]
