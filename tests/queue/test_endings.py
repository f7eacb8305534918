"""How an attempt ends in Redis: what each way of settling, reaping and cancelling writes and says."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.failures import Failure
from emp_trio.jobs import JobResult
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.settlement import Identity, completed, failed, released
from emp_trio.queue.worker_queue import Claim, LeaseRef, WorkerQueue
from tests.queue.support import CAPABILITIES, Ear, Library, iso

WHO = Identity(worker_id="w1", machine_id="m1")
FAILURE = Failure(type="rate_limit", reason="requests_per_minute", message="slow down", retry=True)


async def run(worker_queue: WorkerQueue, lib: Library, *, unified: str = "", **fields: Any) -> tuple[Claim, LeaseRef]:
    """Submit, claim and start the job ``j``."""
    lib.submit("j", **fields)
    claims = await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", fresh_nonce())], lease=15)
    [claim] = claims.jobs
    assert (claim.worker_id, claim.job_id) == ("w1", "j")
    lease = LeaseRef(claim.job_id, claim.token)
    worker_queue.start([lease], unified, lambda ids: pytest.fail(f"refused: {ids}"))
    assert await worker_queue.renew([lease], lease=15) == {}
    assert lib.job("j")["status"] == "in_progress"
    return claim, lease


def fresh_nonce() -> str:
    return f"n{time.monotonic_ns()}"


def left_the_slot(lib: Library) -> bool:
    worker = lib.db.hgetall("worker:w1")
    assert (worker["status"], worker["current_job_id"]) == ("idle", "")
    assert worker["last_status_change"].endswith("Z")
    return lib.db.exists("jobs:active:w1", "emp:leases") == 0


async def test_start_says_processing_and_progress_follows(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    _, lease = await run(worker_queue, lib, unified="m1")
    heard = ear.heard("update_job_progress", "machine:m1:worker:w1")
    started = heard[2][1]
    stamp = started.pop("timestamp")
    assert abs(stamp / 1000 - time.time()) < 5
    assert started == {
        "job_id": "j",
        "worker_id": "w1",
        "progress": 1,
        "status": "processing",
        "message": "",
        "current_step": "",
        "total_steps": 0,
        "estimated_completion": "",
    }
    assert heard[3][1]["event_type"] == "job_started"
    assert heard[3][1]["data"] == {"job_id": "j", "service_type": "comfyui"}
    assert await worker_queue.progress([(lease, 42.5, "half", "sampling", 20)]) == []
    [(_, message)] = ear.heard()
    assert message.pop("timestamp") >= stamp
    assert message == started | {
        "progress": 42.5,
        "status": "in_progress",
        "message": "half",
        "current_step": "sampling",
        "total_steps": 20,
    }


async def test_completed(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    claim, lease = await run(worker_queue, lib, workflow_id="wf", current_step=2, total_steps=2)
    ear.heard()
    job = read_job("j", claim.attempt, claim.fields)
    settlement = completed(job, JobResult(success=True, data={"n": 1}), WHO, now=time.time())
    settlement = msgspec.structs.replace(settlement, last_progress=("polished", "", 0))
    assert await worker_queue.settle(lease, "m1", settlement)

    hash_ = lib.job("j")
    assert hash_["status"] == "completed"
    assert hash_["completed_at"][:16] == iso()[:16]
    assert left_the_slot(lib)
    assert lib.db.hget("jobs:completed", "j").encode() == settlement.stored
    assert 86_000 < lib.db.ttl("jobs:completed") <= 86_400
    assert lib.db.get("worker:completion:job-id:wf:step-id:j:attempt:1").encode() == settlement.records[0][1]
    assert lib.db.ttl("worker:completion:job-id:wf:step-id:j:attempt:1") == -1
    assert lib.db.hmget("job:j:progress", "progress", "message") == ["100", "polished"]
    progress, *heard = ear.heard()
    assert progress[0] == "update_job_progress"
    assert {k: v for k, v in progress[1].items() if k != "timestamp"} == {
        "job_id": "j",
        "worker_id": "w1",
        "progress": 100,
        "status": "in_progress",
        "message": "polished",
        "current_step": 2,
        "total_steps": 2,
        "estimated_completion": "",
    }
    assert [c for c, _ in heard] == ["complete_job", "worker_status", "machine:m1:worker:w1"]
    assert heard[0][1] == json.loads(settlement.message)
    assert (heard[1][1]["old_status"], heard[1][1]["new_status"], heard[1][1]["current_job_id"]) == ("busy", "idle", "")
    assert heard[2][1]["data"]["current_job_id"] is None


@pytest.mark.parametrize("gap", [0.0, 1.5])
async def test_the_list_of_completed_jobs_stays_for_a_day_after_whichever_was_the_last(
    worker_queue: WorkerQueue, lib: Library, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = trio.current_time()
    monkeypatch.setattr("emp_trio.queue.worker_queue.trio.current_time", lambda: clock)
    for number in range(2):
        claim, lease = await run(worker_queue, lib)
        settlement = completed(read_job("j", 1, claim.fields), JobResult(success=True), WHO, now=time.time())
        stored: list[bool] = []
        worker_queue.settle_soon(lease, "m1", settlement, stored.append, failed_before=claim.failed_before)
        assert await worker_queue.renew([], lease=15) == {}  # so that it has been answered
        assert stored == [True]
        left = lib.db.ttl("jobs:completed")
        if number == 0:
            assert 86_000 < left <= 86_400
            lib.db.expire("jobs:completed", 70_000)
            clock += gap
        else:  # set once a second: so many jobs need it
            assert (left > 86_000) == (gap >= 1)
        lib.db.delete("job:j")


@pytest.mark.parametrize("name", ["error", "failure_type", "failure_reason", "failed_at"])
async def test_a_job_with_an_old_failure_in_its_hash_completes_without_it(
    worker_queue: WorkerQueue, lib: Library, name: str
) -> None:
    claim, lease = await run(worker_queue, lib, **{name: "said by another worker"})
    assert claim.failed_before
    settlement = completed(read_job("j", 1, claim.fields), JobResult(success=True), WHO, now=time.time())
    stored: list[bool] = []
    worker_queue.settle_soon(lease, "m1", settlement, stored.append, failed_before=claim.failed_before)
    assert await worker_queue.renew([], lease=15) == {}
    assert stored == [True]
    assert name not in lib.job("j")


def test_a_field_that_was_too_long_to_be_read_may_be_one_of_an_old_failure() -> None:
    claim = Claim(worker_id="w", token="t", job_id="j", fields={"id": b"j"})
    assert not claim.failed_before
    assert msgspec.structs.replace(claim, left_out=("error",)).failed_before


async def test_completed_under_an_aggregator(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    claim, lease = await run(worker_queue, lib)
    ear.heard()
    settlement = completed(read_job("j", 1, claim.fields), JobResult(success=True), WHO, now=time.time())
    assert await worker_queue.settle(lease, "m1", settlement, unified=True)
    events = [m for c, m in ear.heard() if c == "machine:m1:worker:w1"]
    assert [e["event_type"] for e in events] == ["worker_status_changed", "job_completed"]
    assert events[1]["data"] == {"job_id": "j", "service_type": "comfyui"}


async def test_failed_for_good(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    claim, lease = await run(worker_queue, lib, retry_count=2)
    ear.heard()
    settlement = failed(read_job("j", 1, claim.fields), FAILURE, WHO, now=time.time(), random=0)
    assert await worker_queue.settle(lease, "m1", settlement)

    hash_ = lib.job("j")
    assert (hash_["status"], hash_["retry_count"], hash_["last_failed_worker"]) == ("failed", "3", "w1")
    assert (hash_["error"], hash_["failure_type"], hash_["failure_reason"]) == (
        "slow down",
        "rate_limit",
        "requests_per_minute",
    )
    assert hash_["failed_at"][:16] == iso()[:16]
    assert left_the_slot(lib)
    assert lib.db.hget("jobs:failed", "j").encode() == settlement.stored
    assert 604_000 < lib.db.ttl("jobs:failed") <= 604_800
    assert {k: lib.db.get(k).encode() for k, _ in settlement.records} == dict(settlement.records)
    assert [m for c, m in ear.heard("job_failed", "complete_job")] == [json.loads(settlement.message)]
    assert lib.db.exists("jobs:pending", "emp:delayed") == 0


async def test_retried_after_a_delay(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    claim, lease = await run(worker_queue, lib)
    ear.heard()
    settlement = failed(read_job("j", 1, claim.fields), FAILURE, WHO, now=time.time(), random=0)
    assert settlement.delay == 1
    assert await worker_queue.settle(lease, "m1", settlement)

    hash_ = lib.job("j")
    assert (hash_["status"], hash_["worker_id"], hash_["assigned_at"]) == ("pending", "", "")
    assert (hash_["retry_count"], hash_["last_failed_worker"], hash_["error"]) == ("1", "w1", "slow down")
    assert left_the_slot(lib)
    assert lib.db.exists("jobs:pending", "jobs:failed") == 0
    assert [k for k, _ in settlement.records] == ["worker:failure:step-id:j:attempt:1"]
    assert lib.db.exists("worker:failure:step-id:j:attempt:1") == 1
    assert ear.heard("job_failed", "complete_job") == []

    early = await worker_queue.reap()
    assert (early.due, lib.db.zcard("emp:delayed")) == ((), 1)
    assert early.next_due is not None
    assert 0 < early.next_due <= 1
    lib.make_due()
    assert (await worker_queue.reap()).due == ("j",)
    again = await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", fresh_nonce())], lease=15)
    assert again.jobs[0].attempt == 2
    assert read_job("j", 2, again.jobs[0].fields).retry_count == 1


async def test_released_without_using_an_attempt(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    _, lease = await run(worker_queue, lib)
    await worker_queue.save_checkpoint(lease, b'{"response":"resp_1"}')
    ear.heard()
    assert await worker_queue.settle(lease, "m1", released())
    hash_ = lib.job("j")
    assert (hash_["status"], hash_["retry_count"], hash_["worker_id"]) == ("pending", "0", "")
    assert "error" not in hash_
    assert left_the_slot(lib)
    assert ear.heard("job_failed", "complete_job") == []
    assert lib.db.keys("worker:failure:*") == []
    again = await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", fresh_nonce())], lease=15)
    assert read_job("j", 2, again.jobs[0].fields).checkpoint == {"response": "resp_1"}


async def test_a_crash_uses_an_attempt_and_the_third_ends_the_job(
    worker_queue: WorkerQueue, lib: Library, ear: Ear
) -> None:
    lib.submit("j", max_retries=9)
    for crash in (1, 2, 3):
        await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", fresh_nonce())], lease=15)
        lib.start("j", lib.job("j")["lease_token"])
        ear.heard()
        lib.expire_leases()
        reaped = await worker_queue.reap(max_crashes=3)
        hash_ = lib.job("j")
        assert (hash_["crashes"], hash_["retry_count"]) == (str(crash), str(crash))
        assert f"(crash {crash})" in hash_["error"]
        failures = [m for _, m in ear.heard("job_failed")]
        if crash < 3:
            assert (reaped.requeued, reaped.failed, failures) == (("j",), (), [])
            assert json.loads(lib.db.get(f"worker:failure:step-id:j:attempt:{crash}"))["will_retry"] is True
        else:
            assert (reaped.requeued, reaped.failed) == ((), (("j", hash_["error"]),))
            assert [(m["job_id"], m["worker_id"], m["can_retry"]) for m in failures] == [("j", "w1", False)]
            assert hash_["status"] == "failed"
            assert lib.db.hexists("jobs:failed", "j")


async def test_a_lease_that_ran_out_before_the_start_uses_no_attempt(worker_queue: WorkerQueue, lib: Library) -> None:
    lib.submit("j", max_retries=1)
    await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", fresh_nonce())], lease=15)
    lib.expire_leases()
    assert (await worker_queue.reap()).requeued == ("j",)
    assert lib.job("j")["retry_count"] == "0"
    assert lib.db.keys("worker:failure:*") == []


async def test_a_crash_in_the_last_attempt_ends_the_job(worker_queue: WorkerQueue, lib: Library) -> None:
    await run(worker_queue, lib, max_retries=1)
    lib.expire_leases()
    assert [job_id for job_id, _ in (await worker_queue.reap()).failed] == ["j"]


async def test_reaping_takes_no_more_than_asked_and_says_when_to_come_again(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    for number in range(7):
        lib.submit(f"j{number}")
    await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [(f"w{n}", f"n{n}") for n in range(7)], lease=15)
    waiting = await worker_queue.reap()
    assert waiting.next_due is not None
    assert 10 < waiting.next_due <= 15
    lib.expire_leases()
    first = await worker_queue.reap(most=5)
    assert (len(first.requeued), first.next_due) == (5, 0.0)
    second = await worker_queue.reap(most=5)
    assert (len(second.requeued), second.next_due) == (2, None)


@pytest.mark.parametrize("started", [True, False])
async def test_cancel_of_a_running_job(worker_queue: WorkerQueue, lib: Library, ear: Ear, started: bool) -> None:
    claim, lease = await run(worker_queue, lib)
    if not started:
        lib.db.hset("job:j", "status", "assigned")
    ear.heard()
    before = b"in_progress" if started else b"assigned"
    assert await worker_queue.function("cancel", "j", "changed my mind") == [b"cancelled", before]
    hash_ = lib.job("j")
    assert (hash_["status"], hash_["error"]) == ("failed", "changed my mind")
    assert hash_["cancelled_at"] == hash_["failed_at"]
    assert json.loads(lib.db.hget("jobs:failed", "j")) == {
        "error": "changed my mind",
        "failed_at": hash_["failed_at"],
        "cancelled": True,
    }
    said = dict(ear.heard())
    stamp = said["cancel_job"].pop("timestamp")
    assert abs(stamp / 1000 - time.time()) < 5
    assert said["cancel_job"] == {"job_id": "j", "worker_id": "w1", "reason": "changed my mind"}
    assert (said["job_failed"]["can_retry"], said["job_failed"]["error"]) == (False, "changed my mind")
    assert await worker_queue.renew([lease], lease=15) == {"j": "cancelled"}
    late = completed(read_job("j", 1, claim.fields), JobResult(success=True), WHO, now=time.time())
    assert not await worker_queue.settle(lease, "m1", late)
    assert lib.job("j") == hash_
    assert ear.heard() == []
    assert lib.db.exists("jobs:active:w1", "emp:leases", "jobs:completed") == 0


@pytest.mark.parametrize("where", ["pending", "delayed"])
async def test_cancel_of_a_waiting_job(worker_queue: WorkerQueue, lib: Library, ear: Ear, where: str) -> None:
    _, lease = await run(worker_queue, lib)
    await worker_queue.settle(lease, "m1", released(delay=30 if where == "delayed" else 0))
    ear.heard()
    assert await worker_queue.function("cancel", "j", "why not") == [b"cancelled", b"pending"]
    assert [c for c, _ in ear.heard()] == ["job_failed"]  # there is no worker to tell
    assert lib.db.exists("jobs:pending", "emp:delayed") == 0


async def test_the_api_cancels_a_running_job(worker_queue: WorkerQueue, lib: Library, ear: Ear) -> None:
    claim, lease = await run(worker_queue, lib)
    lib.db.hset("job:j", mapping={"status": "failed", "failed_at": iso(), "error": "Cancelled"})
    lib.db.hdel("jobs:active:w1", "j")
    ear.heard()
    assert await worker_queue.renew([lease], lease=15) == {"j": "cancelled"}
    late = completed(read_job("j", 1, claim.fields), JobResult(success=True), WHO, now=time.time())
    assert not await worker_queue.settle(lease, "m1", late)
    assert ear.heard() == []
    lib.expire_leases()
    reaped = await worker_queue.reap()
    assert (reaped.requeued, reaped.failed, reaped.next_due) == ((), (), None)
    assert lib.job("j")["status"] == "failed"


@pytest.mark.parametrize("cancel", ["ours", "the API's"])
def test_a_slot_was_busy_also_with_a_job_that_is_cancelled_before_its_first_words(
    lib: Library, ear: Ear, cancel: str
) -> None:
    lib.submit("j")
    capabilities = json.dumps(CAPABILITIES)
    [[worker, token, *_]] = lib.call("claim", capabilities, "m1", 15000, 0, 512, "2", "w1", "n")[2]
    assert ear.heard() == []
    assert lib.call("begin", "m1", "0", "mark", "j", token) == []
    if cancel == "ours":
        lib.call("cancel", "j", "no more")
    else:
        lib.db.hset("job:j", "status", "failed")
    ear.heard()
    assert lib.call("begin", "m1", "0", "tell", "j", token) == ["j"]
    [(channel, said), _] = ear.heard()
    assert (channel, said["worker_id"], said["new_status"]) == ("worker_status", worker, "busy")
    assert lib.call("begin", "m1", "0", "tell", "j", "another/1") == ["j"]
    assert len(ear.heard()) == (2 if cancel == "ours" else 0)
