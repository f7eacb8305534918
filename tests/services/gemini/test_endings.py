"""How an attempt ends while its interaction is under way, and what the next attempt makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import DeadlineExceeded, LeaseLost, Refused, ServiceError
from emp_trio.jobs import JobResult
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.gemini import FakeGemini, Script
from tests.services.gemini.support import LONG, cut_short, forms, open_gemini, statuses
from tests.services.support import job

CAT = {"prompt": "a cat"}


# What a crash, a drain or a lost lease leaves behind: an interaction is adopted.


@pytest.mark.parametrize("finished", [True, False])
async def test_a_next_attempt_adopts_the_interaction_and_nothing_is_paid_twice(
    gemini: FakeGemini, connector_context: ConnectorContext, finished: bool
) -> None:
    gemini.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_gemini(gemini, connector_context) as first:
        await cut_short(first, CAT, context)
    assert context.checkpoint == {"interaction_id": next(iter(gemini.generations))}
    assert statuses(gemini) == ["in_progress"]
    if finished:
        gemini.finish_all()
    results: list[JobResult] = []
    async with open_gemini(gemini, connector_context) as second, trio.open_nursery() as nursery:

        async def run() -> None:
            results.append(await run_job(second, job(CAT, attempt=2, checkpoint=context.checkpoint)))

        looks = gemini.count("retrieve")
        nursery.start_soon(run)
        with trio.fail_after(60):
            await gemini.until("retrieve", looks + 2)
        gemini.finish_all()
    assert results[0].service_metadata["service_job_id"] == next(iter(gemini.generations))
    assert "maybe_billed_before" not in results[0].metadata
    assert (gemini.count("create"), gemini.billed) == (1, 1)


@pytest.mark.parametrize("reason", ["forgotten", "cancelled", "failed", "garbage"])
async def test_what_cannot_be_adopted_is_started_anew(
    gemini: FakeGemini, connector_context: ConnectorContext, reason: str
) -> None:
    gemini.script = Script(status="failed", seconds=3600) if reason == "failed" else LONG
    context = FakeAttempt(stop_remote_work=reason == "cancelled")
    async with open_gemini(gemini, connector_context) as connector:
        await cut_short(connector, CAT, context)
        checkpoint: Any = {"interaction_id": ["int_1"]} if reason == "garbage" else context.checkpoint
        if reason == "forgotten":
            gemini.generations.clear()
        gemini.finish_all()
        gemini.script = Script()
        assert (await run_job(connector, job(CAT, attempt=2, checkpoint=checkpoint))).success
    assert gemini.count("create") == 2


async def test_a_refusal_is_adopted_and_not_asked_for_again(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = Script(images=0, text="I would rather not.", seconds=3600)
    context = FakeAttempt(stop_remote_work=False)
    async with open_gemini(gemini, connector_context) as connector:
        await cut_short(connector, CAT, context)
        gemini.finish_all()
        with pytest.raises(Refused, match="rather not"):
            await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
    assert gemini.count("create") == 1


async def test_adoption_survives_a_fault_that_passes(gemini: FakeGemini, connector_context: ConnectorContext) -> None:
    gemini.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_gemini(gemini, connector_context) as connector:
        await cut_short(connector, CAT, context)
        gemini.finish_all()
        gemini.inject("retrieve", status=500)
        assert (await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))).success
    assert gemini.count("create") == 1


async def test_five_failed_polls_in_a_row_leave_the_interaction_for_the_next_attempt(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = LONG
    gemini.inject("retrieve", status=500, times=5)
    context = FakeAttempt()
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT), context)
    assert (caught.value.status, caught.value.retry, gemini.count("retrieve")) == (500, True, 5)
    assert context.checkpoint == {"interaction_id": next(iter(gemini.generations))}
    assert statuses(gemini) == ["in_progress"]


# Ways to end an attempt.


@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_stops_the_interaction_only_where_the_job_is_over(
    gemini: FakeGemini, connector_context: ConnectorContext, stop_remote_work: bool, status: str
) -> None:
    gemini.script = LONG
    async with open_gemini(gemini, connector_context) as connector:
        await cut_short(connector, CAT, FakeAttempt(stop_remote_work=stop_remote_work))
    assert statuses(gemini) == [status]


@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_during_the_create_call_does_not_lose_the_interaction(
    gemini: FakeGemini, connector_context: ConnectorContext, stop_remote_work: bool, status: str
) -> None:
    gemini.script = LONG
    gemini.inject("create", delay=0.3)
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    async with open_gemini(gemini, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(CAT), context)
                await gemini.until("create")
                nursery.cancel_scope.cancel()
    assert context.checkpoint == {"interaction_id": next(iter(gemini.generations))}
    assert statuses(gemini) == [status]


async def test_an_interaction_that_nobody_could_adopt_is_stopped(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    class Fenced(FakeAttempt):
        async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
            if set(checkpoint) != {"calls"}:
                raise LeaseLost("the lease is gone")

    gemini.script = LONG
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(LeaseLost):
            await run_job(connector, job(CAT), Fenced(stop_remote_work=False))
    assert statuses(gemini) == ["cancelled"]


async def test_a_cancel_that_the_service_does_not_answer_ends_all_the_same(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = LONG
    gemini.inject("cancel", delay=3600)
    async with open_gemini(gemini, connector_context, cleanup_timeout=0.2) as connector:
        with trio.fail_after(60):
            await cut_short(connector, CAT, FakeAttempt())


@forms
async def test_a_deadline_ends_the_attempt(gemini: FakeGemini, connector_context: ConnectorContext, api: str) -> None:
    gemini.script = LONG
    context = FakeAttempt(0.8, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(CAT), context)
    assert caught.value.stage == "service"
    assert statuses(gemini) == ["cancelled" if api == "interactions" else "in_progress"]


async def test_an_interaction_that_takes_too_long_is_cancelled_and_tried_once_more(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = LONG
    context = FakeAttempt()
    async with open_gemini(gemini, connector_context, poll_timeout=0.2) as connector:
        with pytest.raises(ServiceError, match=r"within 0\.2 s and was cancelled") as caught:
            await run_job(connector, job(CAT), context)
    assert (caught.value.type, caught.value.reason, caught.value.retry) == ("timeout", "processing_timeout", True)
    assert context.checkpoint == {"calls": 1}
    assert statuses(gemini) == ["cancelled"]


async def test_an_interaction_that_is_looked_at_often_enough_is_cancelled(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    """It would run on beside the one that the next attempt begins."""
    gemini.script = LONG
    async with open_gemini(gemini, connector_context, looks=3) as connector:
        with pytest.raises(ServiceError, match="was cancelled"):
            await run_job(connector, job(CAT))
    assert statuses(gemini) == ["cancelled"]


async def test_an_interaction_that_ends_with_the_time_still_counts(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    gemini.script = LONG
    async with open_gemini(gemini, connector_context, poll_timeout=0.3) as connector, trio.open_nursery() as nursery:

        async def finish() -> None:
            await gemini.until("create")
            gemini.inject("retrieve", delay=0.5)  # the time is up before this poll is answered
            await gemini.until("retrieve")
            gemini.finish_all()

        nursery.start_soon(finish)
        assert (await run_job(connector, job(CAT))).success
    assert gemini.count("cancel") == 1
