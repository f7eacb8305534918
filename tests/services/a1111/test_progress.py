"""Progress of a generation: ours, never somebody else's, and never a reason to fail."""

from __future__ import annotations

import re

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import JobResult
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.services.a1111.status import Meter
from emp_trio.testing.a1111 import FakeA1111, Script
from emp_trio.testing.attempt import FakeAttempt, run_job
from tests.services.a1111.support import HELD, PROMPT, held, open_a1111
from tests.services.support import job

STATE, TASK = "/sdapi/v1/progress", "/internal/progress"


def values(context: FakeAttempt) -> list[float]:
    """What was reported, in order."""
    return [report.value for report in context.reports]


def said(context: FakeAttempt) -> str:
    """The last message."""
    return context.reports[-1].message if context.reports else ""


async def finished(connector: A1111WebSocketConnector, context: FakeAttempt) -> JobResult:
    """A job, within seconds."""
    with trio.fail_after(60):
        return await run_job(connector, job(PROMPT), context)


@pytest.mark.parametrize(("routes", "ids"), [(True, True), (False, True), (True, False)])
async def test_progress_comes_while_the_call_is_open(
    a1111: FakeA1111, connector_context: ConnectorContext, routes: bool, ids: bool
) -> None:
    """By the task's own id, or, from servers that don't know it, of whatever runs while nothing else can."""
    a1111.script, a1111.task_routes, a1111.keeps_task_ids = HELD, routes, ids
    context = FakeAttempt()
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector, trio.open_nursery() as nursery:
            nursery.start_soon(finished, connector, context)
            await a1111.until(lambda: held(a1111) and said(context) == "A1111 is at work")
            await a1111.until(lambda: values(context)[-1] == pytest.approx(5 + 85 / 2))
            a1111.release()
    assert values(context) == sorted(values(context))


@pytest.mark.parametrize(("routes", "ids"), [(True, True), (False, True), (True, False)])
async def test_progress_of_somebody_elses_job_is_not_shown_as_ours(
    a1111: FakeA1111, connector_context: ConnectorContext, routes: bool, ids: bool
) -> None:
    a1111.script, a1111.task_routes, a1111.keeps_task_ids = HELD, routes, ids
    context = FakeAttempt()
    other = a1111.begin("txt2img", {})
    await a1111.until(lambda: held(a1111))
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector, trio.open_nursery() as nursery:
            nursery.start_soon(finished, connector, context)
            await a1111.until(lambda: a1111.count(TASK) >= 4)
            assert set(values(context)) == {5.0}
            assert ("In queue: 1/1" in said(context)) is (routes and ids)
            a1111.release(other)
            await a1111.until(lambda: held(a1111, 1))
            a1111.release()
    assert other.end == a1111.work[1].end == "done"


async def test_progress_never_goes_back_and_never_leaves_its_range(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    """A second pass counts from the start, and tells of more than everything in between."""
    a1111.script = Script(seconds=0.2)
    context = FakeAttempt()
    async with open_a1111(a1111.base_url, connector_context) as connector:
        await run_job(connector, job(PROMPT | {"enable_hr": True}), context)
    assert values(context) == sorted(values(context))
    assert len([value for value in values(context) if value == 90]) > 2
    assert max(values(context)[:-1]) == 90


def test_a_meter_keeps_the_furthest() -> None:
    meter = Meter(10, 90)
    assert [meter.move(share) for share in (None, 0.5, 0.01, 1.0, 0.2, None)] == [10, 50, 50, 90, 90, 90]


@pytest.mark.parametrize("status", [500, 401, 404, 200])
async def test_progress_that_can_not_be_had_fails_no_job(
    a1111: FakeA1111, connector_context: ConnectorContext, status: int
) -> None:
    a1111.script = HELD
    a1111.inject(TASK, status=status, body=b"<html>log in</html>", times=1_000)
    a1111.inject(STATE, status=500, body=b"<html>bad gateway</html>", times=1_000)
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector, trio.open_nursery() as nursery:
            nursery.start_soon(finished, connector, FakeAttempt())
            await a1111.until(lambda: held(a1111) and a1111.count(TASK) >= 4)
            a1111.release()
    assert a1111.work[0].end == "done"


async def test_the_answer_does_not_wait_for_a_look_at_the_progress(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = HELD
    a1111.inject(TASK, status=200, body={}, delay=3600)
    with trio.fail_after(60):
        async with (
            open_a1111(a1111.base_url, connector_context, call_timeout=3600) as connector,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(finished, connector, FakeAttempt())
            await a1111.until(lambda: a1111.count(TASK) == 1)
            a1111.release()
    assert a1111.count(TASK) == 1  # one at a time


async def test_task_ids_are_in_the_form_of_the_web_ui(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        for name in ("a-b_C", "spaces and (brackets)", "x" * 65, "é"):
            await run_job(connector, job(PROMPT, id=name, attempt=2))
    tasks = [work.task_id for work in a1111.work]
    assert tasks[0] == "task(a-b_C-2)"
    assert len(set(tasks)) == 4
    assert all(re.fullmatch(r"task\([A-Za-z0-9_-]{1,68}\)", task) for task in tasks)
