"""Processes and servers that stand still and go on: nobody is charged with a crash that was none."""

from __future__ import annotations

import os
import signal
from typing import Any

from emp_trio.testing.valkey import valkey_server
from tests.queue.support import Ear
from tests.worker.processes import ACTORS, open_worker
from tests.worker.support import Play, client, eventually, open_machine, submit, until_status


async def test_a_process_that_stood_still_past_its_lease_is_charged_with_nothing(valkey: str, db: Any) -> None:
    async with open_worker(
        valkey, "--mapping", ACTORS, "--workers", "careless", "--machine-id", "stalled", EMP_TRIO_LEASE_SECONDS="0.9"
    ) as stalled:
        job_id = submit(db, "careless", {"seconds": 30}, max_retries="1")
        await until_status(db, job_id, "in_progress")
        stalled.signal(signal.SIGSTOP)
        heir = Play()
        async with open_machine(valkey, {"careless": heir}, machine_id="heir"):
            attempt = await heir.until_begun()
            assert (attempt.job.attempt, attempt.job.retry_count) == (2, 0)
            assert db.hget(f"job:{job_id}", "crashes") == "1"
            stalled.signal(signal.SIGCONT)
            await eventually(lambda: db.hget(f"job:{job_id}", "crashes") == "0")
            heir.finish.set()
            await until_status(db, job_id, "completed")
        stalled.process.kill()


async def test_jobs_outlive_a_server_that_stands_still_for_longer_than_their_leases(ear: Ear) -> None:
    """All machines are alive; a single attempt is all that the submitter has allowed."""
    with valkey_server("--appendonly", "no") as url:
        db = client(url)
        pid = db.info("server")["process_id"]
        settings = {"lease": 1.0, "renew_every": 0.3, "lease_margin": 0.2, "slots": 4}
        quick = {"reply_timeout": 0.5, "longest_pause": 0.1}
        one, two = Play(), Play()
        async with (
            open_machine(url, {"t": one}, redis_settings=quick, **settings),
            open_machine(url, {"t": two}, machine_id="m2", redis_settings=quick, **settings),
        ):
            jobs = [submit(db, "t", max_retries="1") for _ in range(8)]
            for job_id in jobs:
                await until_status(db, job_id, "in_progress")
            os.kill(pid, signal.SIGSTOP)
            try:
                for play in (one, two):
                    await play.until_over(4)  # their leases ended, as far as they know
            finally:
                os.kill(pid, signal.SIGCONT)
            for play in (one, two):
                play.finish.set()
            for job_id in jobs:
                job = await until_status(db, job_id, "completed")
                assert job["retry_count"] == "0"


async def test_a_server_that_was_away_leaves_running_jobs_where_they_are(db: Any, valkey: str) -> None:
    """Its silence was longer than their leases, but not so long that their holders gave them up."""
    play = Play()
    async with open_machine(valkey, {"t": play}, lease=30.0, renew_every=0.2, slots=2):
        jobs = [submit(db, "t") for _ in range(2)]
        for job_id in jobs:
            await until_status(db, job_id, "in_progress")
        await eventually(lambda: db.hget("emp:heard", "at"))
        pipe = db.pipeline()  # all of it before anybody can speak again
        pipe.hset("emp:heard", "at", "1")
        for job_id in jobs:
            pipe.zadd("emp:leases", {job_id: 1})
        pipe.fcall("emp_trio_reap", 0, 100, 3, "another", 0, 320, 5000)
        assert pipe.execute()[-1][1] == []
        await eventually(lambda: all(db.zscore("emp:leases", job_id) > 1e12 for job_id in jobs))
        play.finish.set()
        for job_id in jobs:
            job = await until_status(db, job_id, "completed")
            assert (job["attempt"], job.get("crashes")) == ("1", None)
