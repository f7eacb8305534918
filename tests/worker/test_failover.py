"""A machine whose Redis is watched by Sentinels: it goes on, under load, when another server becomes the master."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from tests.queue.sentinels import SERVICE, Fleet, eventually, sentinel_fleet, sentinel_program
from tests.worker.support import DONE, HEAVY, LIMIT, Play, open_machine, submit, until_status

RESUME = 10.0  # seconds after which claims go on once there is a new master


def by_hand(fleet: Fleet) -> int:
    return fleet.fail_over()


def by_a_crash(fleet: Fleet) -> int:
    before = fleet.master()
    with fleet.db(before) as db, suppress(redis.ConnectionError):
        db.shutdown(nosave=True)
    eventually(lambda: fleet.master() != before)
    return fleet.master()


def by_a_freeze(fleet: Fleet) -> int:
    before = fleet.master()
    fleet.freeze(before)
    eventually(lambda: fleet.master() != before)
    return fleet.master()


@pytest.mark.parametrize("switch", [by_hand, by_a_crash, by_a_freeze] if HEAVY else [by_hand, by_a_freeze])
@pytest.mark.parametrize("kind", ["valkey", "redis"] if HEAVY else ["valkey"])
async def test_claims_go_on_after_a_fail_over(tmp_path: Path, switch: Callable[[Fleet], int], kind: str) -> None:
    back = HEAVY and switch is by_hand
    lease = 15.0 if HEAVY or switch is by_a_freeze else 6.0
    times = {"lease": lease, "lease_margin": lease / 8, "renew_every": lease / 3}

    async def act(job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(0.05)
        return DONE

    with sentinel_fleet(tmp_path, sentinel_program(kind)) as fleet:
        url = f"redis+sentinel://{fleet.hosts}/{SERVICE}"
        async with open_machine(url, {"t": Play(act)}, slots=8, **times):
            for _ in range(2 if back else 1):
                await trio.to_thread.run_sync(eventually, fleet.is_ready)
                before = fleet.db(fleet.master())
                jobs = [submit(before, "t") for _ in range(400)]
                before.execute_command("WAIT", 1, 5000)  # what only the old master has is lost, whoever runs the jobs
                before.close()
                new = fleet.db(await trio.to_thread.run_sync(switch, fleet))
                began = time.monotonic()
                await _claimed_since(new, submit(new, "t", score=90))
                assert time.monotonic() - began < RESUME
                for job_id in jobs:
                    job = await until_status(new, job_id, "completed", limit=LIMIT)
                    assert int(job["retry_count"]) <= 1  # its outcome may have been lost with the old master
                new.close()


async def _claimed_since(db: Any, job_id: str) -> None:
    with trio.fail_after(LIMIT):
        while db.hget(f"job:{job_id}", "status") == "pending":
            await trio.sleep(0.01)
