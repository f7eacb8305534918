"""Jobs that nobody can run: they end with a reason and stop nobody (queue protocol 3.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emp_trio.errors import ServerRefused
from emp_trio.queue.worker_queue import WorkerQueue
from tests.queue.support import CAPABILITIES, Ear, Library

POISON: list[tuple[Any, str]] = [
    ("null", "requirements is not a JSON object"),
    ("5", "requirements is not a JSON object"),
    ('"abc"', "requirements is not a JSON object"),
    (" true", "requirements is not a JSON object"),
    ({"hardware": None}, "requirements.hardware is not an object"),
    ({"hardware": 5}, "requirements.hardware is not an object"),
    ({"hardware": {"gpu_memory_gb": "16"}}, "requirements.hardware.gpu_memory_gb is not a number"),
    ({"hardware": {"ram_gb": None}}, "requirements.hardware.ram_gb is not a number"),
    ({"hardware": {"cpu_cores": [1]}}, "requirements.hardware.cpu_cores is not a number"),
    ({"positive_requirements": {"hardware": {"ram_gb": True}}}, "requirements.hardware.ram_gb is not a number"),
    ({"positive_requirements": None}, "requirements.positive_requirements is not an object"),
    (
        {"positive_requirements": None, "negative_requirements": {}},
        "requirements.positive_requirements is not an object",
    ),
    ({"positive_requirements": "x"}, "requirements.positive_requirements is not an object"),
    (
        {"positive_requirements": {}, "negative_requirements": None},
        "requirements.negative_requirements is not an object",
    ),
    (
        {"positive_requirements": {}, "negative_requirements": {"hardware": None}},
        "requirements.negative_requirements.hardware is not an object",
    ),
    ({"models": [None]}, "requirements.models is not a list of names"),
]


@pytest.mark.parametrize(("requirements", "why"), POISON)
def test_poison_job_is_failed_once_with_its_reason_and_the_next_one_served(
    lib: Library, ear: Ear, requirements: Any, why: str
) -> None:
    lib.submit("bad", requirements=requirements, priority=90, retry_count=1)
    lib.submit("good", priority=10)
    ear.heard()
    claims = lib.claim("w1")

    assert list(claims["jobs"]) == ["good"]
    assert claims["dropped"] == {"bad": f"invalid_job: {why}"}
    job = lib.job("bad")
    assert (job["status"], job["error"]) == ("failed", f"invalid_job: {why}")
    assert (job["failure_type"], job["failure_reason"]) == ("validation_error", "invalid_payload")
    assert job["retry_count"] == "1"
    assert lib.db.zrange("jobs:pending", 0, -1) == []
    assert json.loads(lib.db.hget("jobs:failed", "bad")) == {
        "error": job["error"],
        "failed_at": job["failed_at"],
        "retry_count": 1,
    }
    assert 0 < lib.db.ttl("jobs:failed") <= 604800
    messages = [m for _, m in ear.heard("job_failed")]
    assert len(messages) == 1
    assert messages[0]["job_id"] == "bad"
    assert messages[0]["can_retry"] is False
    assert messages[0]["error"] == job["error"]
    assert {"worker_id", "timestamp", "failed_at", "retry_count"} <= messages[0].keys()


def test_poison_job_leaves_the_attestations_of_a_permanent_failure(lib: Library) -> None:
    lib.submit("step-7", requirements="5", workflow_id="wf", current_step=2, total_steps=3)
    lib.claim("w1")
    record = json.loads(lib.db.get("worker:failure:job-id:wf:step-id:7:permanent"))
    assert json.loads(lib.db.get("worker:completion:job-id:wf:step-id:7")) == record
    workflow = json.loads(lib.db.get("workflow:failure:wf:permanent"))
    assert workflow == record | {
        "workflow_attestation_type": "job_failure",
        "failed_job_id": "step-7",
        "workflow_status": "failed_permanent",
    }
    stamps = {name: record.pop(name) for name in ("failed_at", "attestation_created_at")}
    assert stamps["failed_at"].endswith("Z")
    assert record == {
        "attestation_type": "failure_permanent",
        "job_id": "step-7",
        "worker_id": record["worker_id"],
        "status": "failed_permanent",
        "error_message": "invalid_job: requirements is not a JSON object",
        "failure_type": "validation_error",
        "failure_reason": "invalid_payload",
        "failure_description": "invalid_job: requirements is not a JSON object",
        "raw_service_output": None,
        "raw_service_request": None,
        "retry_count": 0,
        "will_retry": False,
        "max_retries": 3,
        "workflow_id": "wf",
        "current_step": "2",
        "total_steps": "3",
        "workflow_impact": "workflow_terminated",
        "machine_id": record["machine_id"],
        "worker_version": record["worker_version"],
    }


def test_many_poison_jobs_stop_nobody(lib: Library) -> None:
    for number, (requirements, _) in enumerate(POISON * 10):
        lib.submit(f"bad{number:03}", requirements=requirements, priority=99)
    lib.submit("good", priority=1)
    claims = lib.claim("w1")
    assert list(claims["jobs"]) == ["good"]
    assert len(claims["dropped"]) == len(POISON) * 10
    assert lib.db.zcard("jobs:pending") == 0


def test_ids_without_a_hash_are_removed(lib: Library) -> None:
    lib.db.zadd("jobs:pending", {"ghost": 9e16})
    lib.submit("good")
    claims = lib.claim("w1")
    assert list(claims["jobs"]) == ["good"]
    assert claims["dropped"] == {"ghost": "there is no hash for it"}
    assert lib.db.keys("*ghost*") == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_job_that_has_ended_is_not_run_again(lib: Library, ear: Ear, status: str) -> None:
    lib.submit("done", status=status)
    assert lib.claim("w1")["dropped"] == {"done": f"it is {status} already"}
    assert lib.job("done")["status"] == status
    assert ear.heard("job_claimed", "job_failed", "complete_job") == []


def test_job_running_under_a_lease_is_not_given_out_again(lib: Library) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    lib.db.zadd("jobs:pending", {"j": 1})
    assert lib.claim("w2") == {"next": -1, "jobs": {}, "dropped": {"j": "it is running under a lease"}}
    assert lib.settle("j", token, "completed") == [1, "done"]


@pytest.mark.parametrize("key", ["job:bad", "progress:bad", "job:bad:progress", "jobs:active:w1", "worker:w1"])
def test_key_of_a_wrong_type_stops_nobody(lib: Library, key: str) -> None:
    if key != "job:bad":
        lib.submit("bad", priority=90)
    else:
        lib.db.zadd("jobs:pending", {"bad": 9e16})
    lib.db.set(key, "a string")
    lib.submit("good")
    claims = lib.claim("w1", "w2")
    assert "good" in claims["jobs"]
    if key == "job:bad":
        assert claims["dropped"] == {"bad": "job:bad is not a hash"}
    else:
        assert "bad" in claims["jobs"]
    for job_id, (_, token, _) in claims["jobs"].items():
        assert lib.start(job_id, token)
        assert lib.call("progress", job_id, token, "5", "", "", "0") == []
        assert lib.settle(job_id, token, "completed") == [1, "done"]
        assert lib.job(job_id)["status"] == "completed"


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "1e400", "0x10", "abc", "1e17"])
def test_numbers_that_are_none_do_not_lose_a_job(lib: Library, score: str) -> None:
    for job_id in ("a", "b", "c"):
        lib.submit(job_id, priority=50)
        lib.db.hset(f"job:{job_id}", mapping={"priority": score, "workflow_datetime": score, "max_retries": score})
    tokens = {j: t for j, (_, t, _) in lib.claim("w1", "w2", "w3")["jobs"].items()}
    assert lib.start("c", tokens["c"])
    assert lib.settle("a", tokens["a"], "release") == [1, "done"]
    assert lib.settle("b", tokens["b"], "retry", count=1, delay=5) == [1, "done"]
    lib.make_due()
    lib.expire_leases()
    lib.call("reap", 100, 3)
    lib.call("reap", 100, 3)
    waiting = set(lib.db.zrange("jobs:pending", 0, -1))
    ended = {j for j in "abc" if lib.job(j)["status"] == "failed"}
    assert waiting | ended == {"a", "b", "c"}
    assert {"a", "b"} <= waiting


async def test_pending_of_a_wrong_type_is_a_typed_error(worker_queue: WorkerQueue, lib: Library) -> None:
    lib.db.set("jobs:pending", "a string")
    with pytest.raises(ServerRefused, match="WRONGTYPE") as caught:
        await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", "n")], lease=15)
    assert caught.value.code == "WRONGTYPE"
