"""The queue for other programs: submit, look, cancel, retry; also on what old members of the fleet wrote."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest

from emp_trio.errors import InvalidJob, ServerRefused
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge
from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.job_hash import read_job
from tests.queue.support import OLD_FIELDS, Ear, Library, iso


@pytest.fixture
async def queue(bridge: Bridge) -> Queue:
    await library.ensure(bridge)
    return Queue(bridge)


async def test_submit_writes_every_field_and_tells_the_fleet(queue: Queue, lib: Library, ear: Ear) -> None:
    job_id = await queue.submit(
        "openai_image",
        {"prompt": "é", "n": 1},
        ctx={"storage": {"accountKey": "geheim"}},
        requirements={"hardware": {"ram_gb": 1}},
        priority=70,
        customer_id="c",
        workflow_id="wf",
        workflow_priority=60,
        workflow_datetime=1759606725123,
        current_step=1,
        total_steps=2,
        max_attempts=5,
    )
    uuid.UUID(job_id)
    job = lib.job(job_id)
    created, token = job.pop("created_at"), job.pop("submit_token")
    assert created[:16] == iso()[:16]
    assert token
    assert job == {
        "id": job_id,
        "service_required": "openai_image",
        "priority": "70",
        "payload": '{"prompt":"é","n":1}',
        "requirements": '{"hardware":{"ram_gb":1}}',
        "customer_id": "c",
        "status": "pending",
        "retry_count": "0",
        "max_retries": "5",
        "workflow_id": "wf",
        "workflow_priority": "60",
        "workflow_datetime": "1759606725123",
        "current_step": "1",
        "total_steps": "2",
        "job_trace_id": "",
        "job_span_id": "",
        "workflow_trace_id": "",
        "workflow_span_id": "",
        "ctx": '{"storage":{"accountKey":"geheim"}}',
    }
    [(channel, message)] = ear.heard()
    assert channel == "job_submitted"
    assert abs(message.pop("timestamp") - lib.db.time()[0] * 1000) < 5000
    assert message == {
        "job_id": job_id,
        "service_required": "openai_image",
        "priority": 70,
        "payload": {"prompt": "é", "n": 1},
        "requirements": {"hardware": {"ram_gb": 1}},
        "customer_id": "c",
        "created_at": created,
        "status": "pending",
        "workflow_id": "wf",
        "workflow_priority": 60,
        "workflow_datetime": 1759606725123,
        "current_step": 1,
        "total_steps": 2,
    }


async def test_least_job_has_the_fields_of_the_api_and_can_be_run(queue: Queue, lib: Library) -> None:
    job_id = await queue.submit("comfyui")
    job = lib.job(job_id)
    assert {name: job[name] for name in OLD_FIELDS} == dict.fromkeys(OLD_FIELDS, "")
    assert (job["payload"], job["priority"], job["max_retries"]) == ("{}", "50", "3")
    fields = lib.claim("w1")["jobs"][job_id][2]
    assert read_job(job_id, 1, {k: v.encode() for k, v in fields.items()}).payload == {}


async def test_id_that_is_taken(queue: Queue, lib: Library) -> None:
    assert await queue.submit("comfyui", {"n": 1}, job_id="mine") == "mine"
    with pytest.raises(InvalidJob, match="'mine'"):
        await queue.submit("comfyui", {"n": 2}, job_id="mine")
    assert lib.job("mine")["payload"] == '{"n":1}'
    assert lib.db.zcard("jobs:pending") == 1
    lib.db.set("job:text", "x")
    with pytest.raises(InvalidJob, match="'text'"):
        await queue.submit("comfyui", job_id="text")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"payload": {"x": object()}}, "JSON"),
        ({"payload": {"x": "\ud800"}}, "JSON"),
        ({"payload": {(1, 2): 3}}, "JSON"),
        ({"ctx": {"x": object()}}, "JSON"),
        ({"requirements": {"x": {1, object}}}, "JSON"),
        ({"job_id": "\ud800"}, "job"),
        ({"customer_id": "\ud800"}, "JSON"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
async def test_job_that_cannot_be_written(queue: Queue, lib: Library, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        await queue.submit("comfyui", **arguments)
    assert lib.db.dbsize() == 0


async def test_job_without_a_type(queue: Queue) -> None:
    with pytest.raises(InvalidJob, match="job type"):
        await queue.submit("")


async def test_payload_of_20_mb(queue: Queue, lib: Library) -> None:
    payload = {"text": "x" * 20 * 2**20}
    job_id = await queue.submit("comfyui", payload)
    job = await queue.job(job_id)
    assert job is not None
    assert job.payload == payload


async def test_a_job_is_shown_through_its_life(queue: Queue, lib: Library) -> None:
    job_id = await queue.submit("comfyui", {"n": 1}, max_attempts=2)
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.status, job.payload, job.attempt) == ("pending", "pending", {"n": 1}, 0)

    token = lib.claim("w1")["jobs"][job_id][1]
    lib.start(job_id, token)
    lib.call("progress", job_id, token, "33.5", "a third", "", "0")
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.worker_id, job.progress, job.message, job.attempt) == ("active", "w1", 33.5, "a third", 1)
    assert job.started_at is not None

    lib.settle(job_id, token, "retry", count=1, delay=30)
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.status, job.retry_count, job.error, job.message) == ("delayed", "pending", 1, "boom", "")
    assert job.not_before is not None
    assert iso()[:13] <= job.not_before[:13]

    lib.make_due()
    lib.call("reap", 10, 3)
    lib.settle(job_id, lib.claim("w1")["jobs"][job_id][1], "failed", count=2)
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.failure_type, job.failure_reason) == ("failed", "service_error", "service_down")
    assert (job.error, job.cancelled, job.ended_at) == ("boom", False, lib.job(job_id)["failed_at"])

    assert await queue.retry(job_id) == "queued"
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.retry_count, job.error, job.ended_at, job.attempt) == ("pending", 0, None, None, 2)


async def test_completed_job_with_its_result(queue: Queue, lib: Library) -> None:
    job_id = await queue.submit("comfyui")
    lib.settle(job_id, lib.claim("w1")["jobs"][job_id][1], "completed")
    stored = {"success": True, "data": {"success": True, "data": {"url": "u"}}, "completed_at": iso()}
    lib.db.hset("jobs:completed", job_id, json.dumps(stored))
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.progress, job.result) == ("completed", 100.0, {"success": True, "data": {"url": "u"}})
    assert job.ended_at == lib.job(job_id)["completed_at"]
    lib.db.delete("jobs:completed")  # after a day
    job = await queue.job(job_id)
    assert job is not None
    assert job.result is None


async def test_no_such_job(queue: Queue) -> None:
    assert await queue.job("nobody") is None
    assert await queue.cancel("nobody") == "missing"
    assert await queue.retry("nobody") == "missing"


async def test_cancel_and_retry_answers(queue: Queue, lib: Library) -> None:
    job_id = await queue.submit("comfyui")
    assert await queue.retry(job_id) == "refused"
    assert await queue.cancel(job_id, "why") == "cancelled"
    assert await queue.cancel(job_id) == "cancelled"
    job = await queue.job(job_id)
    assert job is not None
    assert (job.state, job.cancelled, job.error) == ("failed", True, "why")
    assert await queue.retry(job_id) == "queued"
    lib.settle(job_id, lib.claim("w1")["jobs"][job_id][1], "completed")
    assert await queue.cancel(job_id) == "settled"
    assert await queue.retry(job_id) == "refused"


# -- what others wrote


async def test_job_of_the_api_with_the_empty_text_everywhere(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    job = await queue.job("j")
    assert job is not None
    given = msgspec.json.decode(msgspec.json.encode(job))
    assert given.pop("created_at")
    assert given == {"id": "j", "type": "comfyui", "status": "pending", "state": "pending", "payload": {}}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("queued", "pending"),
        ("accepted", "active"),
        ("assigned", "active"),
        ("timeout", "failed"),
        ("unworkable", "failed"),
        ("cancelled", "failed"),
        ("something new", "pending"),
    ],
)
async def test_every_status_of_the_fleet_is_understood(queue: Queue, lib: Library, status: str, state: str) -> None:
    lib.submit("j", status=status)
    job = await queue.job("j")
    assert job is not None
    assert (job.status, job.state) == (status, state)


async def test_failure_of_an_old_worker_and_a_cancel_of_the_api(queue: Queue, lib: Library) -> None:
    lib.submit("failed", status="failed", retry_count=3, failed_at=iso())
    lib.db.hset("jobs:failed", "failed", json.dumps({"error": "Job timeout", "failed_at": iso(), "retry_count": 3}))
    lib.submit("cancelled", status="failed", error="Cancelled by user")
    lib.db.hset("jobs:failed", "cancelled", json.dumps({"error": "Cancelled", "cancelled": True}))
    failed, cancelled = await queue.job("failed"), await queue.job("cancelled")
    assert failed is not None
    assert cancelled is not None
    assert (failed.error, failed.cancelled) == ("Job timeout", False)
    assert (cancelled.error, cancelled.cancelled) == ("Cancelled by user", True)


async def test_result_of_a_delegated_job_has_no_wrapper(queue: Queue, lib: Library) -> None:
    lib.submit("j", status="completed")
    lib.db.hset("jobs:completed", "j", json.dumps({"success": True, "data": {"n": 1}}))
    job = await queue.job("j")
    assert job is not None
    assert job.result == {"success": True, "data": {"n": 1}}


@pytest.mark.parametrize("progress", ["undefined", "NaN", "", "half", "Infinity"])
async def test_progress_that_is_no_number(queue: Queue, lib: Library, progress: str) -> None:
    lib.submit("j", status="in_progress")
    lib.db.hset("job:j", mapping={"priority": "NaN", "retry_count": "x", "max_retries": "1e999"})
    lib.db.hset("job:j:progress", mapping={"progress": progress, "message": "m"})
    job = await queue.job("j")
    assert job is not None
    assert (job.progress, job.message, job.priority, job.retry_count, job.max_attempts) == (None, "m", 50, 0, 3)


async def test_bytes_that_are_no_text_or_json(queue: Queue, lib: Library) -> None:
    lib.submit("j", status="completed", payload=b"\xff{", customer_id=b"\xff")
    lib.db.hset("job:j", b"\xff", b"\xff")
    lib.db.hset("jobs:completed", "j", b"\xff")
    job = await queue.job("j")
    assert job is not None
    assert (job.payload, job.result) == ({}, None)


async def test_key_of_a_wrong_type_is_a_typed_error(queue: Queue, lib: Library) -> None:
    lib.db.set("job:j", "x")
    with pytest.raises(ServerRefused, match="WRONGTYPE"):
        await queue.job("j")


async def test_open_queue_is_all_a_program_needs(valkey: str) -> None:
    async with open_queue(valkey) as queue:
        job_id = await queue.submit("mock")
        assert [job.id for job in await queue.jobs()] == [job_id]
