"""Lists of jobs and of slots."""

from __future__ import annotations

import json

import pytest

from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge
from emp_trio.queue.client import Queue
from emp_trio.queue.job_info import State
from tests.queue.support import CAPABILITIES, Library, iso


@pytest.fixture
async def queue(bridge: Bridge) -> Queue:
    await library.ensure(bridge)
    return Queue(bridge)


def one_of_each(lib: Library) -> None:
    for state in ("active", "delayed", "failed", "completed"):
        lib.submit(state, priority=90)
    tokens = {job_id: token for job_id, (_, token, _) in lib.claim("w1", "w2", "w3", "w4")["jobs"].items()}
    lib.settle("delayed", tokens["delayed"], "retry", count=1, delay=60)
    lib.settle("failed", tokens["failed"], "failed", count=3)
    lib.settle("completed", tokens["completed"], "completed")
    lib.submit("pending")


async def test_jobs_by_state_those_that_matter_first(queue: Queue, lib: Library) -> None:
    one_of_each(lib)
    order = ["active", "delayed", "pending", "failed", "completed"]
    jobs = await queue.jobs()
    assert [job.id for job in jobs] == order
    assert [job.state for job in jobs] == order
    assert all(job.payload is None and job.result is None for job in jobs)


@pytest.mark.parametrize("state", ["active", "delayed", "pending", "failed", "completed"])
async def test_jobs_of_one_state(queue: Queue, lib: Library, state: State) -> None:
    one_of_each(lib)
    assert [job.id for job in await queue.jobs(state)] == [state]


async def test_pending_jobs_come_in_the_order_in_which_they_will_be_claimed(queue: Queue, lib: Library) -> None:
    for priority in (10, 50, 30):
        lib.submit(f"p{priority}", priority=priority)
    assert [job.id for job in await queue.jobs("pending")] == ["p50", "p30", "p10"]


@pytest.mark.parametrize("state", ["failed", "completed"])
async def test_long_lists_are_found_in_full_and_cut_at_the_limit(queue: Queue, lib: Library, state: State) -> None:
    pipe = lib.db.pipeline()
    for number in range(700):
        pipe.hset(f"job:j{number}", mapping={"id": f"j{number}", "service_required": "t", "status": state})
        pipe.hset(f"jobs:{state}", f"j{number}", "x" * 100)
    pipe.execute()
    assert len(await queue.jobs(state, limit=50)) == 50
    assert len({job.id for job in await queue.jobs(state, limit=1000)}) == 700


async def test_limit_counts_per_state(queue: Queue, lib: Library) -> None:
    for number in range(5):
        lib.submit(f"a{number}", priority=90)
        lib.submit(f"p{number}")
    lib.claim(*(f"w{n}" for n in range(5)))
    assert [job.state for job in await queue.jobs(limit=2)] == ["active", "active", "pending", "pending"]


async def test_broken_entries_do_not_hide_the_others(queue: Queue, lib: Library) -> None:
    lib.submit("good", priority=1)
    lib.submit("odd")
    lib.db.set("job:odd:progress", "x")
    lib.db.zadd("jobs:pending", {"text": 9e16, "ghost": 8e16, b"\xff": 7e16})
    lib.db.set("job:text", "x")
    jobs = {job.id: job for job in await queue.jobs()}
    assert jobs["good"].status == "pending"
    assert jobs["text"].status == jobs["odd"].status == "unreadable"
    assert jobs["text"].error == "the key job:text is not a hash"
    assert "ghost" not in jobs


def register(lib: Library, worker: str, *, alive: bool = True, **fields: str) -> None:
    capabilities = json.dumps(CAPABILITIES | {"worker_id": worker})
    values = {"worker_id": worker, "machine_id": "m1", "status": "idle", "current_job_id": "", "last_heartbeat": iso()}
    lib.db.hset(f"worker:{worker}", mapping=values | {"capabilities": capabilities} | fields)
    lib.db.sadd("workers:active", worker)
    if alive:
        lib.db.set(f"worker:{worker}:heartbeat", iso(), ex=60)


async def test_workers(queue: Queue, lib: Library) -> None:
    register(lib, "w2", status="busy", current_job_id="j")
    register(lib, "w1", alive=False)
    register(lib, "odd", capabilities="{bad")
    lib.db.sadd("workers:active", "gone")
    workers = {worker.worker_id: worker for worker in await queue.workers()}
    assert list(workers) == ["odd", "w1", "w2"]
    assert (workers["w2"].status, workers["w2"].current_job_id, workers["w2"].alive) == ("busy", "j", True)
    assert workers["w2"].services == ("comfyui",)
    assert (workers["w1"].alive, workers["w1"].machine_id, workers["w1"].current_job_id) == (False, "m1", None)
    assert workers["odd"].services == ()


async def test_worker_whose_hash_the_api_deleted_but_whose_heart_beats(queue: Queue, lib: Library) -> None:
    register(lib, "w1")
    lib.db.delete("worker:w1")
    [worker] = await queue.workers()
    assert (worker.worker_id, worker.alive, worker.status) == ("w1", True, "")
