"""Stopping: running jobs finish or are handed back, an attempt is not used up, nothing of the worker stays."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.testing.proxy import FaultProxy, open_proxy
from emp_trio.worker.shutdown import Shutdown
from tests.queue.support import Ear
from tests.worker.processes import ACTORS, open_worker
from tests.worker.support import DONE, Play, client, eventually, open_machine, submit, until_status


def keys_of_workers(db: Any) -> list[str]:
    keys = [*db.keys("worker:*"), *db.keys("workers:*"), *db.keys("jobs:active:*")]
    return [key for key in keys if not key.startswith(("worker:completion", "worker:failure"))]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=str)
async def test_a_short_job_finishes_after_the_first_signal(valkey: str, db: Any, number: signal.Signals) -> None:
    async with open_worker(valkey, "--workers", "mock:2") as worker:
        job_id = submit(db, "mock", {"delay_ms": 600})
        await until_status(db, job_id, "in_progress")
        worker.signal(number)
        await worker.until("machine.draining", jobs=1)
        waiting = submit(db, "mock", {"delay_ms": 1})
        assert await worker.code() == 0
    job = db.hgetall(f"job:{job_id}")
    assert (job["status"], job["retry_count"]) == ("completed", "0")
    status, attempt = db.hmget(f"job:{waiting}", "status", "attempt")
    assert status == "pending"
    assert attempt in (None, "1")  # at most a claim that was under way brought it, and handed it back
    assert keys_of_workers(db) == []


async def test_a_hang_up_that_is_to_be_ignored_is_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        shutdown = Shutdown()
        async with trio.open_nursery() as nursery:
            await nursery.start(shutdown.watch_signals)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            await shutdown.begun.wait()
            assert shutdown.reason == "SIGTERM"
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_long_job_is_handed_back_and_runs_elsewhere_with_all_its_attempts(
    valkey: str, db: Any, ear: Ear
) -> None:
    async with open_worker(valkey, "--workers", "mock:1", "--drain", "0.3", "--machine-id", "old") as worker:
        job_id = submit(db, "mock", {"delay_ms": 1500}, max_retries=1)
        await until_status(db, job_id, "in_progress")
        worker.signal(signal.SIGTERM)
        await worker.until("machine.draining", jobs=1)
        assert await worker.code() == 0
        assert worker.events("job.released")
    assert db.hget(f"job:{job_id}", "status") == "pending"
    assert keys_of_workers(db) == []
    async with open_machine(valkey, {"mock": (play := Play())}):
        attempt = await play.until_begun()
        assert (attempt.job.attempt, attempt.job.retry_count) == (2, 0)
        play.finish.set()
        job = await until_status(db, job_id, "completed")
    assert (job.get("crashes"), job["retry_count"]) == (None, "0")
    assert len(ear.heard("complete_job")) == 1


async def test_a_second_signal_hands_back_at_once(valkey: str, db: Any) -> None:
    async with open_worker(valkey, "--workers", "mock:2", "--drain", "60") as worker:
        jobs = [submit(db, "mock", {"delay_ms": 60_000}) for _ in range(2)]
        for job_id in jobs:
            await until_status(db, job_id, "in_progress")
        worker.signal(signal.SIGTERM)
        await worker.until("machine.draining")
        told = time.monotonic()
        worker.signal(signal.SIGINT)
        assert await worker.code() == 0
        assert time.monotonic() - told < 30  # and not the drain's 60 s
    for job_id in jobs:
        job = db.hgetall(f"job:{job_id}")
        assert (job["status"], job["retry_count"], job["worker_id"]) == ("pending", "0", "")
    assert db.zcard("jobs:pending") == 2
    assert keys_of_workers(db) == []


async def test_a_connector_that_will_not_end_does_not_keep_the_process_for_ever(valkey: str, db: Any) -> None:
    """The third signal does what it does to any program; the job's lease runs out."""
    async with open_worker(valkey, "--mapping", ACTORS, "--workers", "stubborn", EMP_TRIO_LEASE_SECONDS="1") as worker:
        job_id = submit(db, "stubborn")
        await until_status(db, job_id, "in_progress")
        worker.signal(signal.SIGTERM)
        await worker.until("machine.draining")
        worker.signal(signal.SIGTERM)
        await worker.until("signal", meaning="stop now")
        worker.signal(signal.SIGTERM)
        assert await worker.code() == -signal.SIGTERM
    play = Play()
    play.finish.set()
    async with open_machine(valkey, {"stubborn": play}):
        await until_status(db, job_id, "completed")


async def test_what_the_connector_sees_when_its_job_is_handed_back(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, drain=0.1) as machine:
        submit(db, "t")
        attempt = await play.until_begun()
        machine.shutdown.stop("deploy")
        await play.until_over()
        assert attempt.cancelled
        assert attempt.stop_remote_work is False  # the next attempt adopts what runs upstream


async def test_a_claim_under_way_is_answered_and_handed_back(valkey: str, db: Any) -> None:
    """Redis is slow; the job was given to us after we decided to stop: it must not wait for a lease to run out."""
    play = Play()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": play}, lease=60.0) as machine:
            await trio.testing.wait_all_tasks_blocked(0.05)
            proxy.latency = 0.15
            job_id = submit(db, "t")
            await eventually(lambda: db.hget(f"job:{job_id}", "status") == "assigned")
            machine.shutdown.stop("deploy")
        job = db.hgetall(f"job:{job_id}")
    assert play.attempts == []
    assert (job["status"], job["retry_count"], job["lease_token"]) == ("pending", "0", "")
    assert db.zscore("jobs:pending", job_id) is not None
    assert db.zcard("emp:leases") == 0


async def test_a_cancelled_machine_hands_its_jobs_back(valkey: str, db: Any) -> None:
    play = Play()
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            async with open_machine(valkey, {"t": play}, lease=60.0):
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(run)
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        nursery.cancel_scope.cancel()
    job = db.hgetall(f"job:{job_id}")
    assert (job["status"], job["retry_count"]) == ("pending", "0")
    assert keys_of_workers(db) == []


async def test_a_crash_of_the_machine_hands_its_jobs_back_and_is_raised(
    valkey: str, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Play()

    async def crash() -> None:
        async with open_machine(valkey, {"t": play}, lease=60.0) as machine:
            job_id = submit(db, "t")
            jobs.append(job_id)
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            monkeypatch.setattr(machine.registration, "_heartbeat", _crash)
            machine.registration.write_now()
            await trio.sleep_forever()

    jobs: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await crash()
    job_id = jobs[0]
    job = db.hgetall(f"job:{job_id}")
    assert (job["status"], job["retry_count"]) == ("pending", "0")
    assert play.attempts[0].stop_remote_work is False
    assert keys_of_workers(db) == []


async def _crash() -> None:
    raise ZeroDivisionError("a defect")


async def test_a_drain_before_redis_took_the_registration_ends_at_once(valkey: str, db: Any) -> None:
    """A replica refuses every write; the first signal must still stop the worker."""
    async with open_worker(valkey, "--workers", "mock") as first:  # loads the library
        first.signal(signal.SIGTERM)
        await first.code()
    other = client(valkey)
    other.replicaof("127.0.0.1", "1")
    try:
        async with open_worker(valkey, "--workers", "mock", ready=False) as worker:
            await worker.until("beat.failed")
            worker.signal(signal.SIGTERM)
            assert await worker.code() == 0
            assert worker.events("machine.ready") == []
    finally:
        other.replicaof("NO", "ONE")
        other.close()


async def test_a_result_that_comes_while_draining_is_stored(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return DONE  # it was as good as done

    async with open_machine(valkey, {"t": Play(act)}, drain=0.05) as machine:
        job_id = submit(db, "t")
        await until_status(db, job_id, "in_progress")
        machine.shutdown.stop("deploy")
        await until_status(db, job_id, "completed")


async def test_an_outcome_that_redis_has_not_taken_is_stored_before_the_machine_goes(
    valkey: str, db: Any, ear: Ear
) -> None:
    play = Play()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy, trio.open_nursery() as nursery:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": play}, lease=60.0, redis_settings={"longest_pause": 0.05}) as machine:
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            proxy.refuse = True
            proxy.reset_all()
            play.finish.set()
            await play.until_over()
            machine.shutdown.stop("deploy")
            machine.shutdown.stop("at once")
            nursery.start_soon(_recover_later, proxy)
    assert db.hget(f"job:{job_id}", "status") == "completed"
    assert len(ear.heard("complete_job")) == 1
    assert keys_of_workers(db) == []


async def _recover_later(proxy: FaultProxy) -> None:
    await trio.sleep(0.5)
    proxy.refuse = False


async def test_an_idle_machine_stops_at_once_although_redis_is_away(valkey: str, db: Any) -> None:
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": Play()}, poll_every=0.1, redis_settings={"longest_pause": 0.05}) as machine:
            await eventually(
                lambda: machine.claimers[0].policy.queue_empty
            )  # no claim is under way, whose outcome it would await
            proxy.refuse = True
            proxy.reset_all()
            await eventually(lambda: machine.claimers[0].failing)
            told = trio.current_time()
            machine.shutdown.stop("deploy")
        assert trio.current_time() - told < 2.0
