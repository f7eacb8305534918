"""Whatever a connector does is its job's outcome; the machine and every other job go on."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import EmpTrioError, InvalidJob, Refused, ServiceError
from emp_trio.jobs import Job, JobResult
from tests.queue.support import Ear
from tests.worker.support import DONE, Play, eventually, open_machine, submit, until_status


class Panic(BaseException):
    """As libraries in other languages raise it."""


class Unspeakable(Exception):
    """Can't even be turned into text."""

    def __str__(self) -> str:
        raise ValueError("no words")


RAISED = {
    "exception": (ValueError("boom"), "system_error", "ValueError: boom"),
    "group": (ExceptionGroup("both", [ValueError("a"), Refused("no nudity")]), "generation_refusal", "no nudity"),
    "exit": (SystemExit(3), "system_error", "SystemExit: 3"),
    "interrupt": (KeyboardInterrupt(), "system_error", "KeyboardInterrupt"),
    "panic": (Panic("rust"), "system_error", "Panic: rust"),
    "panic_group": (BaseExceptionGroup("x", [Panic("rust"), ValueError("b")]), "system_error", "ValueError: b"),
    "unspeakable": (Unspeakable(), "system_error", "Unspeakable"),
    "surrogate": (ServiceError("half a \ud83d", retry=False), "service_error", "half a ?"),
    "no_text": (ServiceError(ValueError("wat"), retry=False), "system_error", "wat"),  # type: ignore[arg-type]
    "no_type": (ServiceError("wat", type=["a"], retry=False), "system_error", "wat"),  # type: ignore[arg-type]
    "huge": (ServiceError("word " * 1_000_000, retry=False), "service_error", "word " * 100),
    "memory": (MemoryError(), "resource_limit", "out of memory"),
    "ours": (EmpTrioError("base"), "system_error", "base"),
    "bad_job": (InvalidJob("no prompt"), "validation_error", "no prompt"),
}


@pytest.mark.parametrize("name", RAISED)
async def test_anything_raised_is_the_failure_of_that_job_alone(valkey: str, db: Any, ear: Ear, name: str) -> None:
    error, failure_type, text = RAISED[name]

    async def act(job: Job, context: AttemptContext) -> JobResult:
        if job.payload.get("raise"):
            raise error
        return DONE

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t", {"raise": True}, max_retries=1)
        job = await until_status(db, job_id, "failed")
        other = submit(db, "t")
        await until_status(db, other, "completed")
    assert job["failure_type"] == failure_type
    assert text in job["error"]
    assert len(job["error"]) < 20_000
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == [job_id]


class Odd:
    """No JSON."""


RETURNED = {
    "none": None,
    "text": "an image",
    "dict": {"success": True},
    "no_success": JobResult(success=False, error="the GPU is on fire"),
    "silent": JobResult(success=False),
    "unencodable": JobResult(success=True, data={"x": Odd()}),
    "surrogate": JobResult(success=True, data={"x": "\ud800"}),
    "huge": JobResult(success=True, data={"text": "word " * 1_000_000}),
    "endless": JobResult(success=True, data={"x": 1}),
}
RETURNED["endless"].data["x"] = RETURNED["endless"].data


@pytest.mark.parametrize("name", RETURNED)
async def test_a_result_that_cannot_be_used_fails_the_job(valkey: str, db: Any, name: str) -> None:
    async def act(job: Job, context: AttemptContext) -> Any:
        return RETURNED[name]

    async with open_machine(valkey, {"t": Play(act)}):
        job = await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert job["error"]
    assert job["failure_type"] in ("system_error", "response_error", "service_error")
    assert db.hlen("jobs:completed") == 0


@pytest.mark.parametrize("wait", [math.inf, math.nan, -5.0, 1e30])
async def test_a_nonsense_wait_does_not_stop_the_machine(valkey: str, db: Any, wait: float) -> None:
    async def act(job: Job, context: AttemptContext) -> Any:
        raise ServiceError("later", retry_after=wait)

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t")
        await eventually(lambda: db.hget(f"job:{job_id}", "retry_count") == "1")
        due = float(db.zscore("emp:delayed", job_id)) / 1000 - time.time()
    assert 0 < due < 86_401  # nobody waits for ever, nor not at all


async def test_an_error_beside_the_cancel_is_no_error_of_the_machine(valkey: str, db: Any) -> None:
    """A connector's nursery, cancelled, gives Cancelled and what the cleanup raised in one group."""

    async def messy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup failed")

    async def act(job: Job, context: AttemptContext) -> Any:
        if not job.payload.get("messy"):
            return DONE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(messy)
            nursery.start_soon(trio.sleep_forever)
        return DONE

    play = Play(act)
    async with open_machine(valkey, {"t": play}) as machine:
        job_id = submit(db, "t", {"messy": True})
        await play.until_begun()
        machine.leases.cancel(job_id)
        await play.until_over()
        await until_status(db, submit(db, "t"), "completed")


async def test_text_that_is_no_text_in_progress_harms_nobody(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> Any:
        context.report(10, "half a \ud83d", step="\udfff")
        await trio.sleep(0.2)
        return DONE

    async with open_machine(valkey, {"t": Play(act)}):
        await until_status(db, submit(db, "t"), "completed")
    assert any(m.get("message") == "half a ?" for _, m in ear.heard("update_job_progress"))


async def test_garbage_on_the_cancel_channel_harms_nobody(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"t": Play(lambda job, progress: _done())}):
        for text in (
            b"",
            b"\xff\xfe",
            b'{"job_id":"\xff"}',
            b"[" * 100_000,
            b'{"job_id":{}}',
            b"null",
            b'{"job_id":"x"}',
        ):
            db.publish("cancel_job", text)
        await until_status(db, submit(db, "t"), "completed")


async def _done() -> JobResult:
    return DONE


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": "{"},
        {"payload": "[]"},
        {"payload": '"\\ud800"'},
        {"payload": "[" * 100_000},
        {"ctx": "{"},
        {"requirements": '{"hardware":null}'},
        {"requirements": "5"},
        {"service_required": "t", "retry_count": "many", "max_retries": "nan", "priority": "x", "payload": "{"},
    ],
    ids=lambda f: json.dumps(f)[:40],
)
async def test_a_malformed_job_fails_with_a_reason(valkey: str, db: Any, ear: Ear, fields: dict[str, str]) -> None:
    async with open_machine(valkey, {"t": Play(lambda job, progress: _done())}):
        bad = submit(db, "t", **fields)
        job = await until_status(db, bad, "failed")
        await until_status(db, submit(db, "t"), "completed")
    assert job["failure_type"] == "validation_error"
    assert job["error"]
    assert [m["job_id"] for _, m in ear.heard("job_failed")] == [bad]
    assert db.zcard("emp:leases") == 0
