"""Slots as the fleet sees them: registration, heartbeat, jobs that old workers left, the end (queue protocol 4.4)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emp_trio.queue.worker_queue import WorkerQueue
from tests.queue.support import Ear, Library

CAPABILITIES = {"worker_id": "@WORKER_ID@", "services": ["comfyui"]}


async def beat(
    worker_queue: WorkerQueue, *slots: str, fresh: bool = False, messages: tuple[tuple[str, bytes], ...] = ()
) -> Any:
    return await worker_queue.heartbeat(
        "m1",
        connected_at="2026-01-01T00:00:00.000Z",
        fresh=fresh,
        statuses=b"{}",
        capabilities=json.dumps({"comfyui": json.dumps(CAPABILITIES)}).encode(),
        slots=json.dumps([[slot, "comfyui", 3, 1] for slot in slots]).encode(),
        messages=messages,
    )


async def test_every_beat_writes_every_registration_field(worker_queue: WorkerQueue, lib: Library) -> None:
    for _ in range(2):
        assert await beat(worker_queue, "w1", "w2") == []
        worker = lib.db.hgetall("worker:w2")
        assert worker.pop("last_heartbeat") == lib.db.get("worker:w2:heartbeat")
        assert json.loads(worker.pop("capabilities")) == {"worker_id": "w2", "services": ["comfyui"]}
        assert worker == {
            "worker_id": "w2",
            "machine_id": "m1",
            "status": "idle",
            "current_job_id": "",
            "connected_at": "2026-01-01T00:00:00.000Z",
            "total_jobs_completed": "3",
            "total_jobs_failed": "1",
            "connector_statuses": "{}",
        }
        assert lib.db.smembers("workers:active") == {"w1", "w2"}
        assert 50 < lib.db.ttl("worker:w2:heartbeat") <= 60
        assert 110 < lib.db.ttl("worker:w2") <= 120
        lib.db.delete("worker:w2", "workers:active")  # as the API does at its start


async def test_a_slot_with_a_job_is_busy_and_no_longer_when_the_job_has_left_it(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    await beat(worker_queue, "w1")
    assert lib.db.hmget("worker:w1", "status", "current_job_id") == ["busy", "j"]
    lib.settle("j", token, "release")
    await beat(worker_queue, "w1")
    assert lib.db.hmget("worker:w1", "status", "current_job_id") == ["idle", ""]


async def test_messages_go_with_the_beat(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    await beat(worker_queue, "w1", messages=(("worker:events", b'{"type":"worker_connected"}'), ("x", b"{}")))
    assert ear.heard() == [("worker:events", {"type": "worker_connected"}), ("x", {})]


@pytest.mark.parametrize("worker", ["w%1", "w%", "w-é", "a" * 300])
async def test_any_worker_id_can_be_registered(worker_queue: WorkerQueue, lib: Library, worker: str) -> None:
    await beat(worker_queue, worker)
    assert lib.db.hget(f"worker:{worker}", "worker_id") == worker
    assert lib.db.hget(f"worker:{worker}", "capabilities") == json.dumps(CAPABILITIES).replace("@WORKER_ID@", worker)


@pytest.mark.parametrize("key", ["jobs:active:w1", "worker:w1", "job:x"])
async def test_key_of_a_wrong_type_does_not_stop_the_heartbeats_of_the_others(
    worker_queue: WorkerQueue, lib: Library, key: str
) -> None:
    lib.db.hset("jobs:active:w1", "x", "{}")
    lib.db.delete(key)
    lib.db.set(key, "a string")
    await beat(worker_queue, "w1", "w2", fresh=True)
    assert lib.db.exists("worker:w1:heartbeat", "worker:w2:heartbeat", "worker:w2") == 3


def leave_job_of_old_worker(lib: Library, job_id: str, status: str = "in_progress") -> None:
    """An old worker of the id w1 runs a job and then is no more."""
    lib.submit(job_id, status=status)
    lib.db.zrem("jobs:pending", job_id)
    lib.db.hset(f"job:{job_id}", "worker_id", "w1")
    lib.db.hset("jobs:active:w1", job_id, json.dumps(lib.job(job_id)))


@pytest.mark.parametrize(("status", "retries"), [("assigned", "0"), ("in_progress", "1")])
async def test_job_left_by_an_old_worker_is_put_back_when_its_heartbeat_has_ended(
    worker_queue: WorkerQueue, lib: Library, status: str, retries: str
) -> None:
    leave_job_of_old_worker(lib, "j", status)
    lib.db.set("worker:w1:heartbeat", "then", ex=40)
    assert await beat(worker_queue, "w1", fresh=True) == ["j"]
    assert await beat(worker_queue, "w1", fresh=True) == []
    reaped = await worker_queue.reap()
    assert reaped.requeued == ()  # the old worker may still be at it
    assert reaped.next_due is not None
    assert 30 < reaped.next_due <= 40
    lib.expire_leases()
    assert (await worker_queue.reap()).requeued == ("j",)
    job = lib.job("j")
    assert (job["status"], job["retry_count"], job["worker_id"]) == ("pending", retries, "")
    assert lib.db.hkeys("jobs:active:w1") == []


async def test_job_left_by_an_old_worker_without_heartbeat_is_put_back_at_once(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    leave_job_of_old_worker(lib, "j")
    assert await beat(worker_queue, "w1", fresh=True) == ["j"]
    assert (await worker_queue.reap()).requeued == ("j",)


async def test_job_that_the_old_worker_ends_after_all_stays_ended(
    worker_queue: WorkerQueue, lib: Library, ear: Ear
) -> None:
    leave_job_of_old_worker(lib, "j")
    await beat(worker_queue, "w1", fresh=True)
    lib.db.hset("job:j", mapping={"status": "completed"})
    ear.heard()
    reaped = await worker_queue.reap()
    assert (reaped.requeued, reaped.failed) == ((), ())
    assert lib.job("j")["status"] == "completed"
    assert ear.heard() == []


async def test_entries_of_jobs_that_left_long_ago_are_cleared_when_the_slot_comes_new(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    for job_id, status, worker in (("done", "completed", "w1"), ("elsewhere", "in_progress", "w9"), ("back", "", "")):
        lib.submit(job_id, status=status or "pending")
        lib.db.hset(f"job:{job_id}", "worker_id", worker)
        lib.db.hset("jobs:active:w1", job_id, "{}")
    lib.db.hset("jobs:active:w1", "gone", "{}")
    assert await beat(worker_queue, "w1", fresh=True) == []
    assert lib.db.hkeys("jobs:active:w1") == []
    assert lib.db.hget("worker:w1", "status") == "idle"


async def test_own_job_of_a_former_life_keeps_its_lease(worker_queue: WorkerQueue, lib: Library) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    assert await beat(worker_queue, "w1", fresh=True) == []
    assert lib.job("j")["lease_token"] == token
    assert (await worker_queue.reap()).requeued == ()


async def test_slots_leave(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    await beat(worker_queue, "w1", "w2", "w3")
    ear.heard()
    for _ in range(2):
        await worker_queue.deregister(["w1", "w2"], [("worker:events", b'{"type":"worker_disconnected"}')])
    assert sorted(lib.db.keys("worker*")) == ["worker:w3", "worker:w3:heartbeat", "workers:active"]
    assert lib.db.smembers("workers:active") == {"w3"}
    assert len(ear.heard("worker:events")) == 2
