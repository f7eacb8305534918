"""Every attempt ends: by its stages' limits, by its job's own deadline, by the number of attempts."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from typing import Any

import pytest
import trio

from emp_trio.attempt import AttemptContext, StageLimits
from emp_trio.errors import AssetError, DeadlineExceeded, Refused, ServiceError
from emp_trio.jobs import Job, JobResult
from tests.queue.support import Ear
from tests.worker.support import DONE, Play, eventually, open_machine, submit, until_status

QUICK = StageLimits(upload=0.15, cdn=0.1, settle=0.1)


async def test_a_service_that_hangs_fails_the_job_with_the_stages_name(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, job_timeout=0.6, stages=QUICK):
        job = await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert (job["failure_type"], job["failure_reason"]) == ("timeout", "processing_timeout")
    assert "service stage did not finish" in job["error"]
    assert play.attempts[0].stop_remote_work is True  # the last attempt: nobody will adopt the work


async def test_the_mapping_may_give_a_service_its_own_time(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, job_timeout=600, stages=QUICK, job_timeout_minutes=0.01):
        job = await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert "service stage did not finish" in job["error"]


async def test_an_earlier_attempt_leaves_the_work_upstream_to_the_next(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, job_timeout=0.6, stages=QUICK):
        submit(db, "t", max_retries=2)
        assert (await play.until_over(1)).stop_remote_work is False
        assert (await play.until_over(2)).stop_remote_work is True


async def test_the_time_that_is_left_is_that_of_the_attempt_and_not_of_its_lease(valkey: str, db: Any) -> None:
    left = []

    async def act(job: Job, context: AttemptContext) -> JobResult:
        left.append(trio.current_effective_deadline() - trio.current_time())
        with context.stage("upload"):
            left.append(trio.current_effective_deadline() - trio.current_time())
        return DONE

    stages = StageLimits(upload=100, cdn=60, settle=10)
    async with open_machine(valkey, {"t": Play(act)}, job_timeout=600, lease=15.0, stages=stages):
        await until_status(db, submit(db, "t"), "completed")
    assert left == [pytest.approx(600 - 170, abs=5), pytest.approx(100, abs=5)]


@pytest.mark.parametrize("stage", ["upload", "cdn"])
async def test_a_stage_inside_has_its_own_limit_and_name(valkey: str, db: Any, stage: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        with context.stage(stage):
            await trio.sleep_forever()
        return DONE

    async with open_machine(valkey, {"t": Play(act)}, job_timeout=30.0, stages=QUICK):
        job = await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert f"the {stage} stage did not finish" in job["error"]


async def test_an_upload_may_take_the_time_that_the_service_stage_no_longer_has(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        await trio.sleep(0.5)
        with context.stage("upload"):
            await trio.sleep(0.4)
        return DONE

    limits = StageLimits(upload=0.8, cdn=0.1, settle=0.1)
    async with open_machine(valkey, {"t": Play(act)}, job_timeout=1.6, stages=limits):
        await until_status(db, submit(db, "t", max_retries=1), "completed")


async def test_the_jobs_own_deadline_counts_and_is_final(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}, job_timeout=30.0, stages=QUICK):
        deadline = int((time.time() + 0.5) * 1000)
        job = await until_status(db, submit(db, "t", deadline=deadline), "failed")
    assert job["failure_type"] == "timeout"
    assert len(play.attempts) <= 2  # what the reserves left of the time may be one more attempt


async def test_a_job_whose_deadline_has_passed_is_not_begun(valkey: str, db: Any) -> None:
    play = Play()
    async with open_machine(valkey, {"t": play}):
        job = await until_status(db, submit(db, "t", deadline=int(time.time() * 1000) - 1000), "failed")
    assert (job["failure_type"], job["failure_reason"]) == ("timeout", "queue_timeout")
    assert play.attempts == []


async def test_a_failed_attempt_is_tried_again_until_none_is_left(valkey: str, db: Any, ear: Ear) -> None:
    began: list[float] = []

    async def act(job: Job, context: AttemptContext) -> JobResult:
        began.append(trio.current_time())
        raise ServiceError("try again", retry_after=0.2)

    play = Play(act)
    async with open_machine(valkey, {"t": play}):
        job_id = submit(db, "t")
        job = await until_status(db, job_id, "failed")
    assert [a.job.attempt for a in play.attempts] == [1, 2, 3]
    assert [a.job.retry_count for a in play.attempts] == [0, 1, 2]
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(began))
    assert (job["retry_count"], job["error"]) == ("3", "try again")
    failed = [m for _, m in ear.heard("job_failed")]
    assert [(m["can_retry"], m["retry_count"]) for m in failed] == [(False, 3)]
    records = db.keys("worker:failure:*")
    assert sorted(key.rpartition("step-id:")[2].partition(":")[2] for key in records) == [
        "attempt:1",
        "attempt:2",
        "permanent",
    ]


async def test_a_wait_that_the_service_states_beats_our_own(valkey: str, db: Any) -> None:
    failed: list[float] = []

    async def act(job: Job, context: AttemptContext) -> JobResult:
        failed.append(time.time())
        raise ServiceError("slow down", status=429, retry_after=7.0)

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t")
        due = await eventually(lambda: db.zscore("emp:delayed", job_id))
    assert failed[0] + 6.9 < float(due) / 1000 <= time.time() + 7.0  # our own first wait is a second at most


async def test_without_a_stated_wait_there_is_a_growing_one(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        raise ServiceError("oops")

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t")
        due = await eventually(lambda: db.zscore("emp:delayed", job_id))
        failed = datetime.fromisoformat(db.hget(f"job:{job_id}", "failed_at")).timestamp()
    assert 0.3 < float(due) / 1000 - failed <= 1.0


@pytest.mark.parametrize(
    "error",
    [Refused("not this"), ServiceError("wrong key", status=401), ServiceError("bad request", status=400)],
    ids=["refused", "auth", "invalid"],
)
async def test_what_another_attempt_cannot_change_is_not_tried_again(valkey: str, db: Any, error: Exception) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        raise error

    play = Play(act)
    async with open_machine(valkey, {"t": play}):
        await until_status(db, submit(db, "t"), "failed")
    assert len(play.attempts) == 1


async def test_a_storage_that_fails_is_tried_again(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        if job.retry_count == 0:
            raise AssetError("the container is full", retry_after=0.01)
        return DONE

    async with open_machine(valkey, {"t": Play(act)}):
        job = await until_status(db, submit(db, "t"), "completed")
    assert job["retry_count"] == "1"


async def test_a_checkpoint_reaches_the_next_attempt(valkey: str, db: Any) -> None:
    async def act(job: Job, context: AttemptContext) -> JobResult:
        if job.checkpoint is None:
            await context.save_checkpoint({"upstream": "abc"})
            raise ServiceError("lost the connection", retry_after=0.01)
        return JobResult(success=True, data={"adopted": job.checkpoint["upstream"]})

    async with open_machine(valkey, {"t": Play(act)}):
        job_id = submit(db, "t")
        await until_status(db, job_id, "completed")
    assert '"adopted":"abc"' in db.hget("jobs:completed", job_id)


async def test_a_stage_of_a_cleanup_is_not_swallowed_by_the_connector(valkey: str, db: Any) -> None:
    """A connector that turns its own time-out into another error still ends in one failure, not in a crash."""

    async def act(job: Job, context: AttemptContext) -> JobResult:
        try:
            with context.stage("upload"):
                await trio.sleep_forever()
        except DeadlineExceeded as error:
            raise AssetError("could not save") from error
        return DONE

    async with open_machine(valkey, {"t": Play(act)}, stages=QUICK):
        job = await until_status(db, submit(db, "t", max_retries=1), "failed")
    assert job["error"] == "could not save"
