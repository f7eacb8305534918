"""Processes that die, stall or are cut off: no job is lost, none ends twice, none is tried for ever."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest
import trio

from tests.queue.support import Ear
from tests.worker.processes import ACTORS, open_worker
from tests.worker.support import HEAVY, Play, eventually, open_machine, submit, until_status


def ends(ear: Ear) -> Counter[str]:
    """How often the end of each job was published."""
    heard = ear.heard("complete_job", "job_failed")
    return Counter(m["job_id"] for channel, m in heard if channel == "complete_job" or m.get("can_retry") is False)


async def test_a_killed_worker_loses_no_job(valkey: str, db: Any, ear: Ear) -> None:
    count = 200 if HEAVY else 24
    slots = 50 if HEAVY else 8
    async with open_worker(
        valkey, "--workers", f"mock:{slots}", "--machine-id", "doomed", EMP_TRIO_LEASE_SECONDS="1"
    ) as doomed:
        long = [submit(db, "mock", {"delay_ms": 60_000}, tell=False, score=90) for _ in range(slots // 4)]
        jobs = long + [submit(db, "mock", {"delay_ms": 150}, tell=False) for _ in range(count - len(long))]
        await eventually(lambda: len(db.keys("worker:completion:*")) >= count // 4)
        for job_id in long:  # these are sure to be running when it dies
            await until_status(db, job_id, "in_progress")
        running = [job for job in jobs if db.hget(f"job:{job}", "status") in ("assigned", "in_progress")]
        doomed.process.kill()
        await doomed.process.wait()
        play = Play()
        play.finish.set()
        async with open_machine(valkey, {"mock": play}, slots=8, machine_id="heir"):
            for job_id in jobs:
                await until_status(db, job_id, "completed", limit=30)
    assert ends(ear) == dict.fromkeys(jobs, 1)
    assert running
    crashed = {job: db.hmget(f"job:{job}", "retry_count", "crashes") for job in jobs}
    assert all(counts in (["0", None], ["0", "0"], ["0", "1"]) for counts in crashed.values())
    assert any(crashed[job] == ["0", "1"] for job in running)
    assert db.zcard("jobs:pending") == db.zcard("emp:leases") == db.zcard("emp:delayed") == 0
    assert db.keys("jobs:active:*") == []


async def test_a_job_that_kills_its_worker_each_time_fails_in_the_end(valkey: str, db: Any, ear: Ear) -> None:
    job_id = submit(db, "deadly", max_retries=10)
    for life in range(3):
        async with open_worker(
            valkey, "--mapping", ACTORS, "--workers", "deadly", ready=False, EMP_TRIO_LEASE_SECONDS="0.5"
        ) as worker:
            assert await worker.code() == -signal.SIGKILL
        await eventually(lambda n=life: int(db.hget(f"job:{job_id}", "attempt")) == n + 1)
    async with open_machine(valkey, {"deadly": (play := Play())}):
        job = await until_status(db, job_id, "failed")
    assert (job["crashes"], job["retry_count"]) == ("3", "0")
    assert "stopped renewing its lease" in job["error"]
    assert play.attempts == []
    assert ends(ear) == {job_id: 1}


async def test_a_stalled_process_settles_nothing_when_it_wakes(valkey: str, db: Any, ear: Ear) -> None:
    """Its connector finishes in spite of everything, after the job has been done elsewhere."""
    async with open_worker(
        valkey, "--mapping", ACTORS, "--workers", "careless", "--machine-id", "stalled", EMP_TRIO_LEASE_SECONDS="0.9"
    ) as stalled:
        job_id = submit(db, "careless", {"seconds": 0.5})
        await until_status(db, job_id, "in_progress")
        stalled.signal(signal.SIGSTOP)
        play = Play()
        play.finish.set()
        async with open_machine(valkey, {"careless": play}, machine_id="other"):
            done = await until_status(db, job_id, "completed")
            stored = db.hget("jobs:completed", job_id)
            stalled.signal(signal.SIGCONT)
            await stalled.until("job.lost", job=job_id)
            after = db.hgetall(f"job:{job_id}")
            assert after == done
            assert db.hget("jobs:completed", job_id) == stored
            second = submit(db, "careless", {"seconds": 0.01})
            await until_status(db, second, "completed")
        stalled.signal(signal.SIGTERM)
        assert await stalled.code() == 0
    assert ends(ear) == {job_id: 1, second: 1}


async def test_a_stalled_process_that_wakes_in_time_goes_on(valkey: str, db: Any, ear: Ear) -> None:
    async with open_worker(valkey, "--workers", "mock", EMP_TRIO_LEASE_SECONDS="6") as worker:
        job_id = submit(db, "mock", {"delay_ms": 700})
        await until_status(db, job_id, "in_progress")
        worker.signal(signal.SIGSTOP)
        await trio.sleep(0.6)
        worker.signal(signal.SIGCONT)
        job = await until_status(db, job_id, "completed")
    assert job["attempt"] == "1"
    assert ends(ear) == {job_id: 1}


async def test_a_restarted_worker_of_the_same_id_takes_up_where_it_died(valkey: str, db: Any, ear: Ear) -> None:
    words = ("--workers", "mock:1", "--machine-id", "box")
    async with open_worker(valkey, *words, EMP_TRIO_LEASE_SECONDS="1") as first:
        job_id = submit(db, "mock", {"delay_ms": 400})
        await until_status(db, job_id, "in_progress")
        first.process.kill()
        await first.process.wait()
        async with open_worker(valkey, *words, EMP_TRIO_LEASE_SECONDS="1"):
            job = await until_status(db, job_id, "completed")
    assert (job["attempt"], job["retry_count"], job["crashes"]) == ("2", "0", "1")
    assert ends(ear) == {job_id: 1}


@pytest.mark.parametrize("rounds", [12 if HEAVY else 2])
async def test_workers_killed_again_and_again_finish_everything_once(
    valkey: str, db: Any, ear: Ear, rounds: int
) -> None:
    """Kill, restart, kill: with enough attempts every job is completed, and completed once."""
    jobs = [submit(db, "mock", {"delay_ms": 100}, tell=False, max_retries=50) for _ in range(15 * rounds)]
    for _ in range(rounds):
        async with open_worker(valkey, "--workers", "mock:5", EMP_TRIO_LEASE_SECONDS="1") as worker:
            before = len(db.keys("worker:completion:*"))
            await eventually(lambda b=before: len(db.keys("worker:completion:*")) >= min(b + 7, len(jobs)))
            worker.process.kill()
            await worker.process.wait()
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"mock": play}, slots=10):
        for job_id in jobs:
            await eventually(lambda j=job_id: db.hget(f"job:{j}", "status") == "completed", limit=30)
    assert ends(ear) == dict.fromkeys(jobs, 1)
