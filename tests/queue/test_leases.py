"""Leases over time: renewed together, run out one by one, and cleared up where somebody else moved the job."""

from __future__ import annotations

import time

import pytest

from emp_trio.queue.worker_queue import LeaseRef, WorkerQueue
from tests.queue.support import Ear, Library, iso, old_score


def seconds_left(lib: Library, job_id: str) -> float:
    """Seconds until a lease ends, by the server's clock."""
    seconds, micros = lib.db.time()
    return float(lib.db.zscore("emp:leases", job_id)) / 1000 - (seconds + micros / 1e6)


def hold(lib: Library, *job_ids: str) -> list[LeaseRef]:
    """Claim these jobs, for one slot each."""
    for job_id in job_ids:
        lib.submit(job_id)
    jobs = lib.claim(*(f"w-{job_id}" for job_id in job_ids))["jobs"]
    return [LeaseRef(job_id, jobs[job_id][1]) for job_id in job_ids]


def put_back(lib: Library, job_id: str) -> None:
    """As the API does with a job of a worker that it thinks gone (queue protocol 4.10)."""
    lib.db.hset(f"job:{job_id}", mapping={"status": "pending", "worker_id": "", "assigned_at": ""})
    lib.db.zadd("jobs:pending", {job_id: old_score(50, 1.7e12)})


async def test_renewal_is_for_all_leases_of_a_machine_and_counts_from_now(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    leases = hold(lib, "a", "b", "c")
    for job_id in "abc":
        lib.db.zadd("emp:leases", {job_id: lib.db.zscore("emp:leases", job_id) - 14_000})
    assert await worker_queue.renew(leases[:2], lease=20) == {}
    assert 18 < seconds_left(lib, "a") <= 20
    assert 18 < seconds_left(lib, "b") <= 20
    assert seconds_left(lib, "c") <= 1


async def test_renewal_in_time_keeps_the_job_from_being_reaped(worker_queue: WorkerQueue, lib: Library) -> None:
    [lease] = hold(lib, "a")
    lib.expire_leases()
    await worker_queue.renew([lease], lease=15)
    reaped = await worker_queue.reap()
    assert (reaped.requeued, lib.job("a")["status"]) == ((), "assigned")
    assert reaped.next_due is not None
    assert reaped.next_due > 10


async def test_renewal_tells_lost_and_cancelled_ones_apart_and_renews_the_rest(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    leases = hold(lib, "kept", "reaped", "cancelled", "stopped", "gone", "taken")
    lib.db.zadd("emp:leases", {"reaped": 1})
    await worker_queue.reap()
    await worker_queue.function("cancel", "cancelled", "user")
    lib.db.hset("job:stopped", mapping={"status": "failed", "failed_at": iso(), "error": "by the API"})
    lib.db.delete("job:gone")
    put_back(lib, "taken")
    lib.db.zadd("emp:leases", {"kept": 1})
    assert await worker_queue.renew(leases, lease=15) == {
        "reaped": "lost",
        "cancelled": "cancelled",
        "stopped": "cancelled",
        "gone": "lost",
        "taken": "lost",
    }
    assert seconds_left(lib, "kept") > 13


def test_slot_is_rid_of_a_job_that_was_put_back_and_claimed_by_another_slot(lib: Library) -> None:
    hold(lib, "a")
    put_back(lib, "a")
    assert "a" in lib.claim("other")["jobs"]
    assert lib.db.hkeys("jobs:active:w-a") == []
    assert lib.db.hkeys("jobs:active:other") == ["a"]


async def test_slot_is_rid_of_a_job_that_was_put_back_when_its_lease_runs_out(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    hold(lib, "a")
    put_back(lib, "a")
    lib.expire_leases()
    reaped = await worker_queue.reap()
    assert (reaped.requeued, reaped.failed) == ((), ())
    assert lib.db.hkeys("jobs:active:w-a") == []
    assert lib.db.zrange("jobs:pending", 0, -1) == ["a"]
    assert lib.job("a")["retry_count"] == "0"


async def test_job_whose_hash_is_gone_is_forgotten(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    hold(lib, "a")
    lib.db.delete("job:a")
    lib.expire_leases()
    ear.heard()
    reaped = await worker_queue.reap()
    assert (reaped.requeued, reaped.failed, reaped.broken, reaped.next_due) == ((), (), (), None)
    assert ear.heard() == []


@pytest.mark.parametrize("status", ["failed", "completed", None])
async def test_delayed_job_that_ended_meanwhile_does_not_come_back(
    worker_queue: WorkerQueue, lib: Library, status: str | None
) -> None:
    [lease] = hold(lib, "a")
    lib.settle("a", lease.token, "retry", count=1, delay=30)
    if status is None:
        lib.db.delete("job:a")
    else:
        lib.db.hset("job:a", "status", status)  # the API's cancel leaves our list alone
    lib.make_due()
    reaped = await worker_queue.reap()
    assert (reaped.due, reaped.next_due) == ((), None)
    assert lib.db.exists("jobs:pending", "emp:delayed") == 0


async def test_two_machines_that_reap_at_once_put_a_job_back_once(worker_queue: WorkerQueue, lib: Library) -> None:
    hold(lib, *"abcdef")
    lib.expire_leases()
    first, second = await worker_queue.reap(most=3), await worker_queue.reap(most=10)
    assert sorted([*first.requeued, *second.requeued]) == list("abcdef")


async def test_job_that_is_claimed_again_and_again_and_never_begins_fails_in_the_end(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    """As a job does that ends the process of its worker at once; a lost reply or two of a claim cost it nothing."""
    lib.submit("a")
    for _ in range(8):
        lib.claim("w")
        lib.expire_leases()
        assert (await worker_queue.reap()).requeued == ("a",)
    assert lib.job("a")["retry_count"] == "0"
    lib.claim("w")
    lib.expire_leases()
    [(failed, why)] = (await worker_queue.reap()).failed
    assert (failed, lib.job("a")["status"]) == ("a", "failed")
    assert "claimed 9 times and never begun" in why


@pytest.mark.parametrize("end", [float("inf"), 4e12, 1e300])
async def test_a_time_that_nothing_of_ours_has_is_due(lib: Library, worker_queue: WorkerQueue, end: float) -> None:
    lib.submit("leased", status="in_progress", worker_id="w", lease_worker="w", lease_token="n/1")
    lib.submit("delayed")
    lib.db.delete("jobs:pending")
    lib.db.zadd("emp:leases", {"leased": end})
    lib.db.zadd("emp:delayed", {"delayed": end})
    reaped = await worker_queue.reap()
    assert (reaped.requeued, reaped.due, reaped.next_due) == (("leased",), ("delayed",), None)
    assert set(lib.db.zrange("jobs:pending", 0, -1)) == {"leased", "delayed"}


@pytest.mark.parametrize("looked", [float("inf"), 4e12])
async def test_nobody_is_relied_on_who_looked_in_the_future(
    lib: Library, worker_queue: WorkerQueue, looked: float
) -> None:
    lib.submit("delayed")
    lib.db.delete("jobs:pending")
    lib.db.zadd("emp:delayed", {"delayed": (time.time() + 600) * 1000})
    lib.db.zadd("emp:processes", {"stranger": looked})
    left = await worker_queue.depart()
    assert (left.back, left.looked) == (("delayed",), None)
