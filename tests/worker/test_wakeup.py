"""How soon an idle machine notices a job, whoever wrote it, and what still finds it when nothing announces it."""

from __future__ import annotations

import statistics
import time
from typing import Any

import trio
import trio.testing

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.services.connector import Connector, Health
from tests.worker.support import DONE, Play, client, open_machine, submit, until_status


async def test_a_job_of_a_foreign_client_starts_at_once(valkey: str, db: Any) -> None:
    began: list[float] = []

    async def act(job: Job, context: AttemptContext) -> JobResult:
        began.append(time.perf_counter())
        return DONE

    waits: list[float] = []
    async with open_machine(valkey, {"t": Play(act)}, slots=1, poll_every=30.0):
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked(0.01)
            submitted = time.perf_counter()
            job_id = submit(db, "t", tell=False)
            await until_status(db, job_id, "completed")
            waits.append(began[-1] - submitted)
    assert statistics.median(waits) < 5  # milliseconds, see benchmarks; the poll alone would take 15 s in the middle


async def test_without_client_tracking_an_announcement_wakes_it(valkey: str, db: Any) -> None:
    db.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    url = valkey.replace("redis://", "redis://plain:secret@")
    play = Play()
    play.finish.set()
    try:
        async with open_machine(url, {"t": play}, poll_every=30.0):
            await trio.testing.wait_all_tasks_blocked(0.05)
            await until_status(db, submit(db, "t", tell=True), "completed", limit=20)
    finally:
        db.execute_command("ACL", "DELUSER", "plain")


async def test_what_was_announced_while_nobody_listened_is_found(valkey: str, db: Any) -> None:
    db.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    url = valkey.replace("redis://", "redis://plain:secret@")
    play = Play()
    play.finish.set()
    try:
        async with open_machine(url, {"t": play}, poll_every=30.0):
            await until_status(db, submit(db, "t"), "completed", limit=20)
            db.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
            await until_status(db, submit(db, "t", tell=True), "completed", limit=20)
    finally:
        db.execute_command("ACL", "DELUSER", "plain")


async def test_without_either_the_poll_finds_it(valkey: str, db: Any) -> None:
    db.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    url = valkey.replace("redis://", "redis://plain:secret@")
    play = Play()
    play.finish.set()
    try:
        async with open_machine(url, {"t": play}, poll_every=0.3):
            await trio.testing.wait_all_tasks_blocked(0.05)
            await until_status(db, submit(db, "t", tell=False), "completed")
    finally:
        db.execute_command("ACL", "DELUSER", "plain")


async def test_a_job_that_came_while_all_slots_were_busy_starts_when_one_is_free(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, slots=1, poll_every=30.0):
        submit(db, "t")
        await play.until_begun()
        second = submit(db, "t")
        play.finish.set()
        await until_status(db, second, "completed", limit=20)


async def test_a_service_that_comes_up_claims_what_waits(valkey: str, db: Any) -> None:
    up = trio.Event()

    async def health(self: Connector) -> Health:
        return Health(healthy=up.is_set(), detail="warming up")

    play = Play(health=health)
    play.finish.set()
    async with open_machine(valkey, {"t": play}, poll_every=30.0, health_retry=0.05):
        job_id = submit(db, "t")
        up.set()
        await until_status(db, job_id, "completed", limit=20)


async def test_machines_take_no_more_than_they_have_slots_for(valkey: str, db: Any) -> None:
    here, there = Play(), Play()
    async with (
        open_machine(valkey, {"t": here}, machine_id="here", slots=2),
        open_machine(valkey, {"t": there}, machine_id="there", slots=3),
    ):
        jobs = [submit(db, "t") for _ in range(8)]
        await here.until_begun(2)
        await there.until_begun(3)
        assert db.zcard("jobs:pending") == 3
        here.finish.set()
        there.finish.set()
        for job_id in jobs:
            await until_status(db, job_id, "completed")
    assert len(here.attempts) + len(there.attempts) == 8


async def test_a_burst_is_claimed_in_few_calls(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"t": play}, slots=50):
        other = client(valkey)
        before = _calls(other)
        pipe = other.pipeline()
        jobs = [submit(pipe, "t", tell=False) for _ in range(200)]
        pipe.execute()
        for job_id in jobs:
            await until_status(db, job_id, "completed")
        assert _calls(other) - before <= 2 * 200  # at most two round trips per job, renewals and beats included
        other.close()


def _calls(db: Any) -> int:
    return int(db.info("commandstats").get("cmdstat_fcall", {}).get("calls", 0))


async def test_the_end_of_a_long_queue_is_reached_by_further_looks_and_not_by_the_next_poll(
    valkey: str, db: Any
) -> None:
    """A look that ran out of its budget goes on, though it found something and slots are free."""
    play = Play()
    play.finish.set()
    with db.pipeline() as batch:
        for number in range(3000):
            batch.hset(f"job:other-{number}", mapping={"id": f"other-{number}", "service_required": "theirs"})
            batch.zadd("jobs:pending", {f"other-{number}": 1_000_000 - number})
        batch.execute()
    jobs = [submit(db, "t", tell=False, score=score) for score in (1, 0)]
    db.zadd("jobs:pending", {jobs[0]: 1_000_001, jobs[1]: -1})
    async with open_machine(valkey, {"t": play}, slots=8, poll_every=3600.0):
        for job_id in jobs:
            await until_status(db, job_id, "completed", limit=20)
