"""What is left in the queue when machines go, one after the other: nothing that the rest of the fleet can't see."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from tests.worker.processes import open_worker, run_cli
from tests.worker.support import Play, client, eventually, open_machine, submit, until_status

WORKERS = ("--workers", "mock:1")


def ours(db: Any) -> set[str]:
    """The keys that nobody else reads."""
    return set(db.keys("emp:*"))


def delay(db: Any, job_id: str, seconds: float = 600.0) -> None:
    """Leave a job for later, as a retry does."""
    submit(db, "elsewhere", id=job_id, tell=False)
    db.zrem("jobs:pending", job_id)
    db.zadd("emp:delayed", {job_id: (time.time() + seconds) * 1000})


async def test_a_delayed_retry_does_not_die_with_the_last_machine(valkey: str, db: Any) -> None:
    async def fail(job: Job, context: AttemptContext) -> Any:
        raise ServiceError("overloaded", status=503, retry_after=20.0)

    async with open_machine(valkey, {"t": Play(fail)}):
        job_id = submit(db, "t")
        await eventually(lambda: db.zscore("emp:delayed", job_id))
        assert db.zscore("jobs:pending", job_id) is None
    assert db.zrange("jobs:pending", 0, -1) == [job_id]
    assert (db.hget(f"job:{job_id}", "status"), db.hget(f"job:{job_id}", "retry_count")) == ("pending", "1")
    assert ours(db) == set()


async def test_a_stopped_process_leaves_nothing_of_its_own(valkey: str, db: Any) -> None:
    async with open_worker(valkey, *WORKERS, "--machine-id", "box") as worker:
        for number in range(250):
            delay(db, f"late-{number}")
        worker.signal(signal.SIGTERM)
        assert await worker.code() == 0
        assert worker.events("machine.put_back")[0]["jobs"] == 250
    assert db.zcard("jobs:pending") == 250
    assert ours(db) == set()


async def test_delayed_jobs_stay_delayed_while_another_machine_looks_after_them(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"t": Play()}, machine_id="m2"):
        async with open_machine(valkey, {"t": Play()}, machine_id="m1"):
            delay(db, "late")
            await eventually(lambda: db.zcard("emp:processes") == 2)
        assert db.zscore("emp:delayed", "late")
        assert db.zcard("emp:processes") == 1
    assert db.zrange("jobs:pending", 0, -1) == ["late"]
    assert ours(db) == set()


async def test_the_last_machine_waits_for_the_lease_of_one_that_was_killed(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, machine_id="m1", reap_every=0.1) as machine:
        submit(db, "t", id="killed")
        await play.until_begun()
        fields = {
            "status": "in_progress",
            "worker_id": "dead-worker-t-0",
            "lease_worker": "dead-worker-t-0",
            "lease_token": "n/1",
        }
        db.hset("job:killed", mapping=fields)  # as if another machine, which is dead, had it
        await play.until_over()
        db.zadd("emp:leases", {"killed": time.time() * 1000 + 1200})
        machine.shutdown.stop("the test is over")
        await eventually(lambda: db.zscore("jobs:pending", "killed"))
        assert db.hget("job:killed", "crashes") == "1"
    assert ours(db) == set()


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
async def test_a_machine_that_was_killed_just_now_is_not_relied_on(
    valkey: str, db: Any, signals: tuple[signal.Signals, ...]
) -> None:
    async with (
        open_worker(valkey, *WORKERS, "--machine-id", "a") as killed,
        open_worker(valkey, *WORKERS, "--machine-id", "b") as worker,
    ):
        await eventually(lambda: db.zcard("emp:processes") == 2)
        delay(db, "late")
        killed.signal(signal.SIGKILL)
        await killed.process.wait()
        for number in signals:
            worker.signal(number)
            await worker.until("signal", meaning="drain")
        assert await worker.code() == 0
    assert db.zrange("jobs:pending", 0, -1) == ["late"]
    assert db.zcard("emp:delayed") == 0


@pytest.mark.parametrize("machines", [("a", "b"), ("one", "one")])
async def test_a_machine_that_lives_keeps_what_is_delayed(valkey: str, db: Any, machines: tuple[str, str]) -> None:
    async with open_worker(valkey, *WORKERS, "--machine-id", machines[0], WORKER_ID="w1") as first:
        async with open_worker(valkey, *WORKERS, "--machine-id", machines[1], WORKER_ID="w2") as second:
            await eventually(lambda: db.zcard("emp:processes") == 2)
            delay(db, "late")
            second.signal(signal.SIGTERM)
            assert await second.code() == 0
            assert db.zscore("emp:delayed", "late")
            assert db.zcard("emp:processes") == 1
        first.signal(signal.SIGTERM)
        assert await first.code() == 0
    assert db.zrange("jobs:pending", 0, -1) == ["late"]
    assert ours(db) == set()


async def test_a_second_signal_ends_that_wait(valkey: str, db: Any) -> None:
    async with open_worker(valkey, *WORKERS) as worker:
        submit(db, "elsewhere", id="killed", status="in_progress", worker_id="d", lease_worker="d", lease_token="n/1")
        db.zrem("jobs:pending", "killed")
        db.zadd("emp:leases", {"killed": time.time() * 1000 + 600_000})
        worker.signal(signal.SIGTERM)
        await worker.until("machine.waits")
        worker.signal(signal.SIGTERM)
        assert await worker.code() == 0
    assert db.zscore("emp:leases", "killed")


async def test_reap_puts_back_what_the_last_kill_left(valkey: str, db: Any) -> None:
    async with open_worker(valkey, "--workers", "mock:2", EMP_TRIO_LEASE_SECONDS="3") as worker:
        running = submit(db, "mock", {"delay_ms": 600_000})
        await until_status(db, running, "in_progress")
        delay(db, "late")
        worker.signal(signal.SIGKILL)
        await worker.process.wait()
        assert ours(db) >= {"emp:leases", "emp:delayed"}
        code, out, _ = await run_cli("reap", "--json", "--redis", valkey)
    found = json.loads(out)
    assert code == 0
    assert (found["requeued"], found["delayed_back"], found["watched"]) == ([running], ["late"], False)
    assert set(db.zrange("jobs:pending", 0, -1)) == {running, "late"}
    assert [key for key in ours(db) if db.ttl(key) < 0] == []


async def test_reap_leaves_to_a_living_machine_what_is_its_own(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, lease=15.0):
        submit(db, "t", id="running")
        delay(db, "late")
        await play.until_begun()
        code, out, _ = await run_cli("reap", "--redis", valkey)
        assert (code, out.strip()) == (0, "1 leased and 1 delayed jobs are looked after by workers")
        assert db.zscore("emp:delayed", "late")
        assert not play.attempts[0].cancelled


async def test_reap_says_what_it_can_not_handle(valkey: str, db: Any) -> None:
    delay(db, "late")
    db.set("jobs:pending", "x")
    code, out, err = await run_cli("reap", "--redis", valkey)
    assert code == 1
    assert "jobs:pending can't be handled: the key is not a sorted set" in out
    assert "Traceback" not in err
    db.delete("jobs:pending")
    code, out, _ = await run_cli("reap", "--redis", valkey)
    assert (code, out.strip()) == (0, "late queued: it was delayed")
    assert (await run_cli("reap", "--redis", valkey))[1].strip() == "nothing was left behind"


@pytest.mark.parametrize("machines", [0, 1])
async def test_a_broken_list_of_machines_hinders_nobody(valkey: str, db: Any, machines: int) -> None:
    db.set("emp:processes", "x")
    async with open_machine(valkey, {"t": Play()}, reap_every=0.1):
        delay(db, "late", 0.2)
        await eventually(lambda: db.zscore("jobs:pending", "late"))
    assert client(valkey).get("emp:processes") == "x"
    await trio.lowlevel.checkpoint()
