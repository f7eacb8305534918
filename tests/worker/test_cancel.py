"""A user's cancel reaches the connector, by whatever way it is heard of."""

from __future__ import annotations

from typing import Any

import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.queue.client import open_queue
from emp_trio.testing.proxy import open_proxy
from tests.queue.support import Ear
from tests.worker.support import DONE, Play, cancel_as_api, eventually, open_machine, submit, until_status


async def test_the_apis_cancel_reaches_the_connector_before_a_renewal(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, renew_every=30.0, lease=90.0):
        job_id = submit(db, "t")
        attempt = await play.until_begun()
        await until_status(db, job_id, "in_progress")
        told = trio.current_time()
        cancel_as_api(db, job_id)
        await play.until_over()
        assert trio.current_time() - told < 15  # by the message: the next renewal is 30 s away
        assert attempt.cancelled
        assert attempt.stop_remote_work is True
        await eventually(lambda: db.hget("worker:m1-worker-t-0", "status") == "idle")
    assert db.hget(f"job:{job_id}", "status") == "failed"
    assert ear.heard("complete_job", "job_failed") == []  # the API says it itself
    assert db.exists("jobs:completed") == 0


async def test_our_own_cancel_says_so_once(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}), open_queue(valkey) as queue:
        job_id = await queue.submit("t")
        attempt = await play.until_begun()
        assert await queue.cancel(job_id, "changed my mind") == "cancelled"
        await play.until_over()
        assert attempt.stop_remote_work is True
        assert await queue.cancel(job_id) == "cancelled"
        play.finish.set()
        await until_status(db, submit(db, "t"), "completed")
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == [job_id]


async def test_a_cancel_that_was_not_published_is_noticed_by_the_renewal(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, renew_every=0.2):
        job_id = submit(db, "t")
        attempt = await play.until_begun()
        await until_status(db, job_id, "in_progress")
        cancel_as_api(db, job_id, tell=False)
        await play.until_over()
        assert attempt.stop_remote_work is True


async def test_a_cancel_that_was_not_published_is_noticed_at_progress(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        for value in range(90):
            context.report(value)
            await trio.sleep(0.05)
        return DONE

    play = Play(act)
    async with open_machine(valkey, {"t": play}, renew_every=30.0, lease=90.0):
        job_id = submit(db, "t")
        attempt = await play.until_begun()
        await until_status(db, job_id, "in_progress")
        cancel_as_api(db, job_id, tell=False)
        await play.until_over()
        assert attempt.cancelled
        assert attempt.stop_remote_work is True


async def test_a_cancel_between_claim_and_start_is_known_as_one(valkey: str, db: Any) -> None:
    """The attempt has begun here before Redis says that there is nothing left to begin."""
    play = Play()
    async with (
        open_proxy(int(valkey.rpartition(":")[2])) as proxy,
        open_machine(f"redis://127.0.0.1:{proxy.port}", {"t": play}, renew_every=30.0, lease=90.0),
    ):
        proxy.latency = 0.2
        job_id = submit(db, "t")
        await eventually(lambda: db.hget(f"job:{job_id}", "status") == "assigned")
        cancel_as_api(db, job_id, tell=False)
        attempt = await play.until_begun()
        await play.until_over()
        assert attempt.stop_remote_work is True


async def test_a_delayed_retry_can_be_cancelled(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        raise ServiceError("busy", retry_after=0.3)

    play = Play(act)
    async with open_machine(valkey, {"t": play}), open_queue(valkey) as queue:
        job_id = await queue.submit("t")
        await eventually(lambda: db.zscore("emp:delayed", job_id))
        assert await queue.cancel(job_id) == "cancelled"
        play.finish.set()
        await trio.sleep(0.6)  # longer than the delay: nothing may come of it
    assert len(play.attempts) == 1
    assert db.hget(f"job:{job_id}", "status") == "failed"


async def test_a_result_that_comes_in_spite_of_a_cancel_is_not_stored(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        with trio.CancelScope(shield=True):
            await finish.wait()
        return DONE

    finish = trio.Event()
    play = Play(act)
    async with open_machine(valkey, {"t": play}):
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        cancel_as_api(db, job_id)
        await trio.sleep(0.05)
        finish.set()
        await eventually(lambda: db.hget("worker:m1-worker-t-0", "status") == "idle")
    assert db.hget(f"job:{job_id}", "status") == "failed"
    assert ear.heard("complete_job") == []
    assert db.exists("jobs:completed") == 0
