"""Progress: bounded in rate and size, never backwards, never the end, never a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import Refused, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.secrets import Redactor
from emp_trio.testing.proxy import open_proxy
from emp_trio.worker import executor
from tests.queue.support import Ear
from tests.worker.support import DONE, Play, eventually, open_machine, submit, until_status


def told(ear: Ear) -> list[dict[str, Any]]:
    """Progress as the worker tells it: without the zero of the claim and the one of the start."""
    return [m for _, m in ear.heard("update_job_progress") if m.get("status") == "in_progress"]


async def test_many_reports_become_at_most_ten_messages_a_second(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        for step in range(500):
            context.report(step / 5, f"step {step}")
            await trio.sleep(0.002)
        context.report(99, "last")
        await last.wait()
        return DONE

    last = trio.Event()
    async with open_machine(valkey, {"t": Play(act)}):
        began = trio.current_time()
        job_id = submit(db, "t")
        await eventually(lambda: db.hget(f"job:{job_id}:progress", "message") == "last")
        seconds = trio.current_time() - began
        last.set()
        await until_status(db, job_id, "completed")
        messages = told(ear)
    assert 5 <= len(messages) <= 10 * seconds + 2
    values = [m["progress"] for m in messages]
    assert values == sorted(values)
    assert messages[-1]["message"] == "last"
    assert messages[-1]["progress"] == 100  # as with the fleet's workers, whose connectors say so before they return
    assert db.hgetall(f"job:{job_id}:progress")["progress"] == "100"


async def test_progress_never_falls_never_says_the_end_and_fits_the_protocol(valkey: str, db: Any, ear: Ear) -> None:
    reports = [(50, "half"), (10, "back?"), (100, "done?"), (1e9, "more?"), (float("nan"), "odd"), (-5, "under")]

    async def act(job: Job, context: AttemptContext) -> JobResult:
        for value, message in reports:
            context.report(value, message, step="encode", total_steps=7)
            await eventually(lambda m=message: db.hget(f"job:{job.id}:progress", "message") == m)
        return DONE

    async with open_machine(valkey, {"t": Play(act)}, progress_every=0.01):
        job_id = submit(db, "t")
        await until_status(db, job_id, "completed")
    every = [m for _, m in ear.heard("update_job_progress")]
    assert [m["progress"] for m in every] == [0, 1, 50, 50, 99, 99, 99, 99, 100]
    assert not {m.get("status") for m in every} & {"completed", "failed"}
    assert every[1]["status"] == "processing"
    for message in every[2:]:
        assert message.keys() == {
            *("job_id", "worker_id", "progress", "status", "message", "current_step", "total_steps"),
            *("estimated_completion", "timestamp"),
        }
        assert (message["job_id"], message["worker_id"][:12]) == (job_id, "m1-worker-t-")
        assert (message["current_step"], message["total_steps"]) == ("encode", 7)


async def test_nothing_is_told_of_a_job_after_its_end(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(42, "on the way")
        return DONE

    async with open_machine(valkey, {"t": Play(act)}, progress_every=0.3):
        for _ in range(5):
            await until_status(db, submit(db, "t"), "completed")
        heard = ear.heard("update_job_progress", "complete_job")
    ended: set[str] = set()
    for channel, message in heard:
        assert message["job_id"] not in ended
        if channel == "complete_job":
            ended.add(message["job_id"])
    assert len(ended) == 5


async def test_a_long_message_is_cut(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(10, "x" * 1_000_000, step="y" * 1_000_000)
        await eventually(lambda: db.exists(f"job:{job.id}:progress"))
        return DONE

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t")
        await until_status(db, job_id, "completed")
    assert len(db.hget(f"job:{job_id}:progress", "message")) <= 1000


async def test_no_secret_is_told_in_progress_errors_or_results(valkey: str, db: Any, ear: Ear) -> None:
    machine_key, job_key = "machine-key-0123456789", "am9iLWtleS0wMTIzNDU2Nzg5"

    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(10, f"calling with {machine_key} and {job_key}", step=job_key)
        await eventually(lambda: db.exists(f"job:{job.id}:progress"))
        if job.payload.get("fail"):
            raise ServiceError(f"401 for {machine_key}: {job_key}", retry=False)
        if job.payload.get("crash"):
            raise ValueError(f"{job_key} {machine_key}")
        return JobResult(
            success=True, data={"echo": [machine_key, job_key]}, raw_request_payload={"key": f"{machine_key} {job_key}"}
        )

    ctx = {"storage": {"accountName": "acc", "accountKey": job_key}}
    async with open_machine(valkey, {"t": Play(act)}, secrets=(machine_key,)):
        jobs = [submit(db, "t", payload, ctx=ctx, max_retries=1) for payload in ({}, {"fail": 1}, {"crash": 1})]
        for job_id in jobs:
            await eventually(lambda j=job_id: db.hget(f"job:{j}", "status") in ("completed", "failed"))
    for job_id in jobs:
        db.hdel(f"job:{job_id}", "ctx")  # where the submitter himself has put it
    everything = json.dumps(ear.heard()) + _dump(db)
    assert machine_key not in everything
    assert job_key not in everything
    assert "***" in everything


async def test_the_credentials_of_a_job_are_masked_in_the_log_of_its_failure(
    valkey: str, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log masks what is held when a line is written, and the credentials of a job are held while it runs."""
    job_key, lines = "am9iLWtleS0wMTIzNDU2Nzg5", list[str]()

    class Log:
        def warning(self, event: str, *, exc_info: BaseException, **_: Any) -> None:
            lines.append(f"{event} {Redactor().text(str(exc_info))}")

    async def act(job: Job, context: AttemptContext) -> JobResult:
        raise ValueError(f"key {job_key}")

    monkeypatch.setattr(executor, "log", Log())
    async with open_machine(valkey, {"t": Play(act)}):
        ctx = {"storage": {"accountName": "acc", "accountKey": job_key}}
        await until_status(db, submit(db, "t", ctx=ctx, max_retries=1), "failed")
    assert lines == ["connector.error key ***"]


@pytest.mark.parametrize("error", [Refused("not that"), ServiceError("out of order", retry=False), ValueError("x")])
async def test_the_last_report_of_a_job_that_fails_is_published(
    valkey: str, db: Any, ear: Ear, error: Exception
) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(30, "the last report")
        raise error

    async with open_machine(valkey, {"t": Play(act)}, progress_every=60.0, announcement=0.0):
        for _ in range(2):  # the second one within the pause after the first one's message
            await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert [m["message"] for m in told(ear) if m["progress"] == 30] == ["the last report"] * 2


def _dump(db: Any) -> str:
    found = []
    for key in db.keys("*"):
        kind = db.type(key)
        found.append({"hash": db.hgetall, "string": db.get, "stream": db.xrange}.get(kind, lambda k: k)(key))
    return json.dumps(found, default=str)


async def test_the_last_word_is_said_when_redis_is_back(valkey: str, db: Any, ear: Ear) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        context.report(10, "first")
        await away.wait()
        for step in range(20):
            context.report(50 + step, f"into the void {step}")
            await trio.sleep(0.01)
        said.set()
        await over.wait()
        return DONE

    away, said, over = trio.Event(), trio.Event(), trio.Event()
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_machine(url, {"t": Play(act)}, lease=30.0, redis_settings={"longest_pause": 0.05}):
            job_id = submit(db, "t")
            await eventually(lambda: db.hget(f"job:{job_id}:progress", "message") == "first")
            proxy.refuse = True
            proxy.reset_all()
            away.set()
            await said.wait()
            await trio.sleep(0.2)
            proxy.refuse = False
            await eventually(lambda: db.hget(f"job:{job_id}:progress", "message") == "into the void 19")
            over.set()
            await until_status(db, job_id, "completed")
    values = [m["progress"] for m in told(ear)]
    assert values == sorted(values)
