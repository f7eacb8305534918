"""How an attempt ends while its response is under way, and what the next attempt makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, LeaseLost, Refused, ServiceError
from emp_trio.jobs import JobResult
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from tests.services.openai.support import LONG, broken, connectors, cut_short, open_openai, payload_for, statuses
from tests.services.support import job

# What a crash, a drain or a lost lease leaves behind.


@connectors
@pytest.mark.parametrize("finished", [True, False])
async def test_a_next_attempt_adopts_the_response_and_nothing_is_paid_twice(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, finished: bool
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context) as first:
        await cut_short(first, payload_for(cls), context)
    assert statuses(openai) == ["in_progress"]
    if finished:
        openai.finish_all()
    async with open_openai(cls, openai, connector_context) as second, trio.open_nursery() as nursery:
        results: list[JobResult] = []

        async def run() -> None:
            results.append(await run_job(second, job(payload_for(cls), attempt=2, checkpoint=context.checkpoint)))

        looks = openai.count("retrieve")
        nursery.start_soon(run)
        with trio.fail_after(60):
            await openai.until("retrieve", looks + 2)
        openai.finish_all()
    assert results[0].service_metadata["service_job_id"] == next(iter(openai.generations))
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
async def test_an_upload_that_failed_is_not_a_reason_to_pay_again(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    context = FakeAttempt()
    async with open_openai(cls, openai, broken(connector_context)) as connector:
        with pytest.raises(AssetError, match="storage is away"):
            await run_job(connector, job(payload_for(cls)), context)
    async with open_openai(cls, openai, connector_context) as connector:
        result = await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=context.checkpoint))
    assert result.success
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
@pytest.mark.parametrize("reason", ["forgotten", "cancelled", "failed", "garbage"])
async def test_what_cannot_be_adopted_is_started_anew(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, reason: str
) -> None:
    openai.script = Script(status="failed") if reason == "failed" else LONG
    context = FakeAttempt(stop_remote_work=reason == "cancelled")
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload_for(cls), context)
        checkpoint: Any = context.checkpoint
        if reason == "forgotten":
            openai.generations.clear()
        if reason == "garbage":
            checkpoint = {"response_id": ["resp_1"]}
        openai.finish_all()
        openai.script = Script()
        result = await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=checkpoint))
    assert result.success
    assert openai.count("create") == 2


@connectors
async def test_a_refusal_is_adopted_and_not_asked_for_again(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = Script(status="failed", error={"code": "moderation_blocked", "message": "No."}, seconds=3600)
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload_for(cls), context)
        openai.finish_all()
        with pytest.raises(Refused):
            await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=context.checkpoint))
    assert openai.count("create") == 1


@connectors
async def test_adoption_survives_a_fault_that_passes(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload_for(cls), context)
        openai.finish_all()
        openai.inject("retrieve", status=500)
        assert (await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=context.checkpoint))).success
    assert openai.count("create") == 1


# Ways to end an attempt.


@connectors
@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_stops_the_response_only_where_the_job_is_over(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, stop_remote_work: bool, status: str
) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload_for(cls), FakeAttempt(stop_remote_work=stop_remote_work))
    assert statuses(openai) == [status]


@connectors
@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_during_the_create_call_does_not_lose_the_response(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, stop_remote_work: bool, status: str
) -> None:
    openai.script = LONG
    openai.inject("create", delay=0.3)
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    async with open_openai(cls, openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(payload_for(cls)), context)
                await openai.until("create")
                nursery.cancel_scope.cancel()
    assert context.checkpoint == {"response_id": next(iter(openai.generations))}
    assert statuses(openai) == [status]


@connectors
async def test_a_response_that_nobody_could_adopt_is_stopped(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    class Fenced(FakeAttempt):
        async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
            if set(checkpoint) != {"calls"}:
                raise LeaseLost("the lease is gone")

    openai.script = LONG
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(LeaseLost):
            await run_job(connector, job(payload_for(cls)), Fenced(stop_remote_work=False))
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_crash_in_the_request_is_counted(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    """The response may run, and its id is lost: one more is paid for, and not a third."""
    openai.inject("create", delay=3600, after=True)
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context, cleanup_timeout=0.2) as connector:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload_for(cls)), context)
            with trio.fail_after(60):
                await context.until_remembered(count=True)
            nursery.cancel_scope.cancel()
            assert context.checkpoint == {"calls": 1}
        with pytest.raises(ServiceError, match="asked 2 times") as caught:
            await run_job(connector, job(payload_for(cls), attempt=3, checkpoint={"calls": 2}))
    assert not caught.value.retry


@connectors
@pytest.mark.parametrize("status", [429, 503])
async def test_a_drain_of_a_call_that_was_refused_counts_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, status: int
) -> None:
    """It waits to be made again, together with all others; nothing has run that could be billed."""
    openai.inject("create", status=status, headers={"retry-after": "9"}, times=10)
    context = FakeAttempt(stop_remote_work=False)
    async with (
        open_openai(cls, openai, connector_context, cleanup_timeout=0.2) as connector,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(run_job, connector, job(payload_for(cls)), context)
        await openai.until("create")
        await trio.testing.wait_all_tasks_blocked(0.05)  # it has read the refusal
        nursery.cancel_scope.cancel()
    assert context.checkpoint == {"calls": 0}


@connectors
async def test_a_cancel_that_the_service_does_not_answer_ends_all_the_same(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    openai.inject("cancel", delay=3600)
    async with open_openai(cls, openai, connector_context, cleanup_timeout=0.2) as connector:
        with trio.fail_after(60):
            await cut_short(connector, payload_for(cls), FakeAttempt())


@connectors
async def test_a_deadline_stops_the_response(openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any) -> None:
    openai.script = LONG
    context = FakeAttempt(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(payload_for(cls)), context)
    assert caught.value.stage == "service"
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_response_that_takes_too_long_is_cancelled_and_fails(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, connector_context, poll_timeout=0.2) as connector:
        with pytest.raises(ServiceError, match=r"within 0\.2 s and was cancelled") as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.reason) == ("timeout", "processing_timeout")
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_response_that_ends_with_the_time_still_counts(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    async with (
        open_openai(cls, openai, connector_context, poll_timeout=0.3) as connector,
        trio.open_nursery() as nursery,
    ):

        async def finish() -> None:
            await openai.until("create")
            openai.inject("retrieve", delay=0.5)  # the time is up before this poll is answered
            await openai.until("retrieve")
            openai.finish_all()

        nursery.start_soon(finish)
        result = await run_job(connector, job(payload_for(cls)))
    assert result.success
    assert openai.count("cancel") == 1
