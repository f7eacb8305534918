"""Redis goes away, forgets, is full, is broken: the worker lives, says so once, and goes on when it can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import structlog
import structlog.testing
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import NotSent, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.queue.embedded import open_embedded_server
from emp_trio.testing.proxy import open_proxy
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import Ear
from tests.worker.processes import open_worker
from tests.worker.support import DONE, HEAVY, Play, client, eventually, open_machine, submit, until_status

QUICK = {"longest_pause": 0.05, "reply_timeout": 1.0}


@contextmanager
def own_server(*extra: str) -> Iterator[tuple[str, Any]]:
    """A server of the test's own, and a connection to it."""
    with valkey_server(*extra) as url:
        db = client(url)
        try:
            yield url, db
        finally:
            db.close()


@pytest.mark.parametrize("keep", [True, False], ids=["with data", "without data"])
async def test_a_restarted_server(tmp_path: Any, keep: bool) -> None:
    """Its jobs go on where it kept its data; where it did not, the worker goes on with the next ones."""
    play = Play()
    async with trio.open_nursery() as nursery:
        server = open_embedded_server(tmp_path / "a")
        first = await server.__aenter__()
        port = int(first.tcp_url.rpartition(":")[2])
        async with open_machine(first.tcp_url, {"t": play}, lease=5.0, renew_every=0.3, redis_settings=QUICK):
            db = client(first.tcp_url)
            job_id = submit(db, "t")
            attempt = await play.until_begun()
            await until_status(db, job_id, "in_progress")
            await server.__aexit__(None, None, None)
            async with open_embedded_server(tmp_path / ("a" if keep else "b"), port=port):
                await eventually(lambda: _registered(db))
                if keep:
                    play.finish.set()
                    job = await until_status(db, job_id, "completed")
                    assert (job["attempt"], job["retry_count"]) == ("1", "0")
                else:
                    await play.until_over()
                    assert attempt.cancelled
                    play.finish.set()
                    assert db.exists(f"job:{job_id}") == 0
                await until_status(db, submit(db, "t"), "completed")
                db.close()
        nursery.cancel_scope.cancel()


def _registered(db: Any) -> bool:
    try:
        return bool(db.exists("worker:m1-worker-t-0"))
    except redis.ConnectionError:
        return False


async def test_a_long_outage_ends_in_recovery(valkey: str, db: Any) -> None:
    """Everything that was running or waiting is done when Redis has been back for a while; the slots go on."""

    async def act(job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(0.3)
        return DONE

    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": Play(act)}, slots=5, redis_settings={"reply_timeout": 1.0}, lease=1.0):
            jobs = [submit(db, "t") for _ in range(20)]
            await eventually(lambda: db.scard("workers:active") and db.hlen("jobs:completed") >= 3)
            proxy.blackhole = True
            await trio.sleep(30 if HEAVY else 2.5)
            proxy.blackhole = False
            proxy.reset_all()
            jobs += [submit(db, "t") for _ in range(5)]
            for job_id in jobs:
                job = await until_status(db, job_id, "completed")
                assert int(job["retry_count"]) <= 1
    assert db.zcard("emp:leases") == 0


async def test_a_full_server_refuses_new_jobs_but_takes_outcomes() -> None:
    play = Play()
    with own_server() as (url, db):
        async with open_machine(url, {"t": play}, redis_settings=QUICK) as machine:
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            waiting = submit(db, "t", tell=False)
            await play.until_begun(2)
            last = submit(db, "t")
            db.config_set("maxmemory", "1")
            play.finish.set()
            await until_status(db, job_id, "completed")
            await until_status(db, waiting, "completed")
            await eventually(lambda: db.hget("worker:m1-worker-t-0", "status") == "idle")
            assert db.hget(f"job:{last}", "status") == "pending"
            await eventually(lambda: len(machine.leases) == 0)
            db.config_set("maxmemory", "0")
            await until_status(db, last, "completed")


async def test_a_full_server_keeps_failures_and_retries_too() -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(50, "half")
        await full.wait()
        raise ServiceError("no", retry=job.payload["retry"], retry_after=0.05)

    full = trio.Event()
    with own_server() as (url, db):
        async with open_machine(url, {"t": Play(act)}, redis_settings=QUICK):
            failing, retried = submit(db, "t", {"retry": False}), submit(db, "t", {"retry": True}, max_retries=2)
            await until_status(db, failing, "in_progress")
            await until_status(db, retried, "in_progress")
            db.config_set("maxmemory", "1")
            full.set()
            await until_status(db, failing, "failed")
            await eventually(lambda: db.hget(f"job:{retried}", "retry_count") == "1")
            db.config_set("maxmemory", "0")
            await until_status(db, retried, "failed")


async def test_functions_that_were_flushed_are_loaded_again(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}):
        running = submit(db, "t")
        await play.until_begun()
        db.function_flush()
        play.finish.set()
        await until_status(db, running, "completed")
        db.function_flush()
        await until_status(db, submit(db, "t"), "completed")


async def test_a_queue_of_the_wrong_type_is_waited_out(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, poll_every=0.1):
        running = submit(db, "t")
        await play.until_begun()
        db.set("jobs:pending", "oops")
        play.finish.set()
        await until_status(db, running, "completed")
        db.delete("jobs:pending")
        await until_status(db, submit(db, "t"), "completed")


async def test_a_job_that_cannot_go_back_into_a_broken_queue_is_not_lost(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, drain=0.05, machine_id="old") as machine:
        job_id = submit(db, "t")
        await play.until_begun()
        await until_status(db, job_id, "in_progress")
        db.set("jobs:pending", "oops")
        machine.shutdown.stop("deploy")
        await play.until_over()
    assert db.hget(f"job:{job_id}", "retry_count") == "0"
    assert db.zscore("emp:delayed", job_id)  # it is looked at again in a minute
    db.delete("jobs:pending")
    db.zadd("emp:delayed", {job_id: 1})
    play.finish.set()
    async with open_machine(valkey, {"t": play}, machine_id="new"):
        await until_status(db, job_id, "completed")


async def test_an_outcome_is_published_although_its_list_is_of_the_wrong_type(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        if job.payload.get("fail"):
            raise ServiceError("no", retry=False)
        return DONE

    db.set("jobs:completed", "oops")
    db.set("jobs:failed", "oops")
    async with open_machine(valkey, {"t": Play(act)}):
        good, bad = submit(db, "t"), submit(db, "t", {"fail": 1})
        await until_status(db, good, "completed")
        await until_status(db, bad, "failed")
    ended = {(channel, m["job_id"]) for channel, m in ear.heard("complete_job", "job_failed")}
    assert ended == {("complete_job", good), ("job_failed", bad)}


async def test_an_outage_is_said_once_per_trouble_not_four_times_a_second(valkey: str, db: Any) -> None:
    play = Play()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        with structlog.testing.capture_logs() as logs:
            async with open_machine(
                url, {"t": play}, redis_settings=QUICK, lease=30.0, renew_every=0.2, poll_every=0.1
            ):
                job_id = submit(db, "t")
                await play.until_begun()
                proxy.refuse = True
                proxy.reset_all()
                await trio.sleep(1.5)
                proxy.refuse = False
                play.finish.set()
                await until_status(db, job_id, "completed")
    for event in ("claim.failed", "leases.not_renewed"):
        assert 1 <= sum(line["event"] == event for line in logs) <= 2


async def test_a_server_that_is_not_there_at_the_start(valkey: str) -> None:
    with pytest.raises(NotSent, match="no connection to Redis"):
        async with open_machine("redis://127.0.0.1:1", {"t": Play()}, redis_settings={"patience": 0.3}):
            pass


async def test_a_server_that_comes_late_is_waited_for(valkey: str, db: Any) -> None:
    play = Play()
    play.finish.set()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        proxy.refuse = True
        async with open_worker(f"redis://127.0.0.1:{proxy.port}", "--workers", "mock", ready=False) as worker:
            await eventually(lambda: proxy.accepted >= 2)
            proxy.refuse = False
            await worker.until("machine.ready")


@pytest.mark.skipif(not HEAVY, reason="takes the ten seconds that the command waits; EMP_TRIO_HEAVY=1 runs it")
async def test_a_server_that_is_not_there_ends_the_command_with_a_reason() -> None:
    async with open_worker("redis://:hidden-word@127.0.0.1:1", "--workers", "mock", ready=False) as worker:
        assert await worker.code() == 1
    assert "no connection to Redis" in worker.err
    assert "hidden-word" not in worker.err
    assert "Traceback" not in worker.err


async def test_a_reply_that_is_lost_claims_no_job_twice(valkey: str, db: Any) -> None:
    """The claim was executed, its reply cut off: the job is found again by its nonce, without using an attempt."""
    play = Play()
    play.finish.set()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(
            url, {"t": play}, redis_settings=QUICK, lease=30.0, beat_every=20.0, reap_every=20.0, poll_every=0.05
        ):
            await trio.sleep(0.3)  # until the first beats and looks are over
            proxy.cut_before_reply = 1
            jobs = [submit(db, "t", tell=False) for _ in range(3)]
            for job_id in jobs:
                job = await until_status(db, job_id, "completed", limit=10)
                assert job["retry_count"] == "0"
    assert len(play.attempts) == 3


async def test_an_outcome_whose_reply_is_lost_is_published_once(valkey: str, db: Any, ear: Ear) -> None:
    play = Play()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        slow: dict[str, Any] = {"lease": 60.0, "renew_every": 20.0, "beat_every": 20.0, "reap_every": 20.0}
        async with open_machine(url, {"t": play}, slots=1, redis_settings=QUICK, poll_every=20.0, **slow) as machine:
            job_id = submit(db, "t")
            await play.until_begun()
            await until_status(db, job_id, "in_progress")
            proxy.cut_before_reply = 1  # only the outcome can be the next to be answered
            play.finish.set()
            job = await until_status(db, job_id, "completed")
            await eventually(lambda: len(machine.leases) == 0)
            assert proxy.cut_before_reply == 0
            await until_status(db, submit(db, "t"), "completed")
    assert job["attempt"] == "1"
    assert [m["job_id"] for _, m in ear.heard("complete_job")].count(job_id) == 1


async def test_a_machine_that_starts_while_redis_refuses_writes_waits_for_it() -> None:
    with own_server() as (url, db):
        db.config_set("maxmemory", "1")
        async with trio.open_nursery() as nursery:

            async def relieve() -> None:
                await eventually(lambda: "errorstat_OOM" in db.info("errorstats"))
                db.config_set("maxmemory", "0")

            nursery.start_soon(relieve)
            async with open_machine(url, {"t": Play()}, redis_settings=QUICK):
                assert db.config_get("maxmemory")["maxmemory"] == "0"
