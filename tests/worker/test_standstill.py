"""A connector that blocks the event loop costs no other slot its job, until it has blocked for too long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.queue.support import Ear
from tests.worker.processes import ACTORS, open_worker
from tests.worker.support import HEAVY, Play, eventually, open_machine, submit, until_status

WORDS = ("--mapping", ACTORS, "--workers", "blocking:2,mock:4", "--machine-id", "blocked")


@asynccontextmanager
async def an_heir(url: str) -> AsyncIterator[Play]:
    """Another machine that would take over any job whose lease ran out."""
    play = Play()
    play.finish.set()
    async with open_machine(url, {"blocking": play, "mock": play}, machine_id="heir", reap_every=0.1):
        yield play


async def begin(db: Any, *jobs: tuple[str, dict[str, Any]]) -> list[str]:
    ids = [submit(db, job_type, payload) for job_type, payload in jobs]
    for job_id in ids:
        await until_status(db, job_id, "in_progress")
    return ids


@pytest.mark.parametrize("how", ["sleep", "child", "compute"])
async def test_a_loop_that_stands_still_for_longer_than_a_lease_costs_no_slot_its_job(
    valkey: str, db: Any, ear: Ear, how: str
) -> None:
    lease, seconds = (15.0, 25.0) if HEAVY else (1.5, 5.0)
    async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS=f"{lease}") as worker:
        others = await begin(db, *[("mock", {"delay_ms": 1500})] * 4)
        blocking = submit(db, "blocking", {"how": how, "seconds": seconds, "after": 0.3})
        await until_status(db, blocking, "in_progress")
        async with an_heir(valkey) as heir:
            for job_id in (blocking, *others):
                job = await until_status(db, job_id, "completed", limit=seconds + 30)
                assert (job["attempt"], job.get("crashes"), job["retry_count"]) == ("1", None, "0")
                assert job["worker_id"].startswith("blocked-")
            assert heir.attempts == []
            for n in range(4):
                assert db.exists(f"worker:blocked-worker-mock-{n}:heartbeat")
        said = await worker.until("loop.stands_still")
        assert (said["connector"], said["job"]) == ("BlockingConnector", blocking)
        assert "actors.py" in said["at"]
        await worker.until("loop.moves_again")
        assert worker.events("loop.stopped") == []


async def test_jobs_of_the_same_claim_and_of_claims_under_way_are_kept_too(valkey: str, db: Any, ear: Ear) -> None:
    """One of many jobs blocks the loop in the very moment in which it is begun, while others are being claimed."""
    words = ("--mapping", ACTORS, "--workers", "blocking:20", "--machine-id", "blocked")
    for _ in range(3):
        pipe = db.pipeline()
        jobs = [
            submit(pipe, "blocking", {"how": "sleep", "seconds": 3.5 if n == 3 else 0.0}, score=99 - n, tell=False)
            for n in range(60)
        ]
        pipe.execute()
        async with open_worker(valkey, *words, EMP_TRIO_LEASE_SECONDS="1.5") as worker:
            # Whether its start reaches Redis before it blocks the loop is open; afterwards it may be over at once.
            await eventually(lambda blocks=jobs[3]: db.hget(f"job:{blocks}", "status") != "pending")
            async with an_heir(valkey):
                for job_id in jobs:
                    job = await until_status(db, job_id, "completed", limit=60)
                    assert (job["attempt"], job.get("crashes"), job.get("unstarted")) == ("1", None, None), job
            worker.process.kill()
            await worker.process.wait()
            db.delete("workers:active")


@pytest.mark.parametrize("how", ["regex", "json"])
async def test_code_that_holds_the_interpreter_for_less_than_a_lease_costs_no_slot_its_job(
    valkey: str, db: Any, how: str
) -> None:
    async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="6"):
        others = await begin(db, *[("mock", {"delay_ms": 1000})] * 4)
        blocking = submit(db, "blocking", {"how": how, "seconds": 2.0, "after": 0.3})
        await until_status(db, blocking, "in_progress")
        async with an_heir(valkey) as heir:
            for job_id in (blocking, *others):
                job = await until_status(db, job_id, "completed", limit=60)
                assert (job["attempt"], job.get("crashes")) == ("1", None)
            assert heir.attempts == []


async def test_code_that_holds_the_interpreter_for_longer_than_a_lease_loses_jobs_but_none_ends_twice(
    valkey: str, db: Any, ear: Ear
) -> None:
    """What no thread can help: nothing of the process runs. The jobs go to another machine; fencing does the rest."""
    async with open_worker(valkey, *WORDS, EMP_TRIO_LEASE_SECONDS="0.5"):
        (other,) = await begin(db, ("mock", {"delay_ms": 600}))
        blocking = submit(db, "blocking", {"how": "regex", "seconds": 12.0, "after": 0.2})
        async with an_heir(valkey):
            for job_id in (other, blocking):
                await until_status(db, job_id, "completed", limit=60)
            await eventually(lambda: db.hget("worker:blocked-worker-blocking-0", "status") == "idle", limit=60)
        ends = [m["job_id"] for _, m in ear.heard("complete_job")]
    assert sorted(ends) == sorted([other, blocking])


async def test_a_loop_that_stands_still_for_too_long_loses_its_jobs_and_the_log_names_the_connector(
    valkey: str, db: Any, ear: Ear
) -> None:
    slow = {"EMP_TRIO_LEASE_SECONDS": "1.5", "EMP_TRIO_STANDSTILL_SECONDS": "1"}
    async with open_worker(valkey, *WORDS, **slow) as worker:
        (other,) = await begin(db, ("mock", {"delay_ms": 600}))
        blocking = submit(db, "blocking", {"how": "sleep", "seconds": 8.0, "after": 0.2})
        await until_status(db, blocking, "in_progress")
        async with an_heir(valkey) as heir:
            for job_id in (other, blocking):
                job = await until_status(db, job_id, "completed")
                assert (job["attempt"], job["crashes"]) == ("2", "1")
                assert job["worker_id"].startswith("heir-")
            assert len(heir.attempts) == 2
        said = await worker.until("loop.stopped")
        assert (said["connector"], said["job"]) == ("BlockingConnector", blocking)
        await worker.until("loop.moves_again")
        again = submit(db, "mock", {"delay_ms": 10})  # the process has recovered
        assert (await until_status(db, again, "completed"))["worker_id"].startswith("blocked-")
    assert sorted(m["job_id"] for _, m in ear.heard("complete_job")) == sorted([other, blocking, again])
