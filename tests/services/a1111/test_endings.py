"""How an attempt ends while A1111 is at work: an interrupt stops whatever runs, so only ours may be interrupted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from emp_trio.assets.config import KeepSettings, StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, ConfigError, DeadlineExceeded
from emp_trio.testing.a1111 import Failure, FakeA1111, Script
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.storage import local_storage
from tests.services.a1111.support import GENERATE, HELD, PROMPT, held, open_a1111
from tests.services.support import job, stored

OURS = "task(job-1-1)"

servers = pytest.mark.parametrize("task_routes", [True, False])
"""Those that know a task by its id, and those that only say whether anything runs."""


class Run:
    """One attempt in the background: ``scope`` cancels it, ``over`` is set at its end."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.result: Any = None


@asynccontextmanager
async def running(
    a1111: FakeA1111,
    connector_context: ConnectorContext,
    until: Callable[[], bool],
    *,
    stop_remote_work: bool = True,
    **settings: Any,
) -> AsyncIterator[Run]:
    """An attempt of job-1, once ``until`` is met; it must end by itself or by a cancel within the block."""
    run = Run()

    async def attempt() -> None:
        with run.scope:
            run.result = await run_job(connector, job(PROMPT), FakeAttempt(stop_remote_work=stop_remote_work))
        run.over.set()

    with trio.fail_after(60):
        async with (
            open_a1111(a1111.base_url, connector_context, **settings) as connector,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(attempt)
            await a1111.until(until)
            yield run
            await run.over.wait()


@servers
@pytest.mark.parametrize("stop_remote_work", [True, False])
async def test_a_cancel_interrupts_and_half_a_image_is_no_result(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path, task_routes: bool, stop_remote_work: bool
) -> None:
    """Also after a drain: no other attempt could get what this one would make."""
    a1111.script, a1111.task_routes = HELD, task_routes
    async with running(a1111, connector_context, lambda: held(a1111), stop_remote_work=stop_remote_work) as run:
        run.scope.cancel()
    assert a1111.work[0].end == "interrupted"
    assert a1111.work[0].answer[0] == 200  # the half image came
    assert run.result is None
    assert stored(tmp_path / "assets") == {}
    assert set(a1111.engine.interrupts) == {a1111.work[0].task_id}


async def test_an_interrupt_is_repeated_until_the_call_returns(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(hold_at=2, deaf=True)
    async with running(a1111, connector_context, lambda: held(a1111)) as run:
        run.scope.cancel()
        await a1111.until(lambda: len(a1111.engine.interrupts) >= 3)
        assert not run.over.is_set()
        a1111.release()
        await run.over.wait()
        count = len(a1111.engine.interrupts)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert len(a1111.engine.interrupts) == count
    assert a1111.work[0].end == "interrupted"


async def test_a_cancel_does_not_wait_for_ever(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.script = Script(hold_at=2, deaf=True)
    with structlog.testing.capture_logs() as logs:
        async with running(a1111, connector_context, lambda: held(a1111), cleanup_timeout=0.3) as run:
            run.scope.cancel()
            with trio.fail_after(60):
                await run.over.wait()
    assert a1111.work[0].end == "running"
    assert "a1111.not_stopped" in [entry["event"] for entry in logs]


@servers
async def test_a_job_that_waits_is_cancelled_without_harm_to_the_one_that_runs(
    a1111: FakeA1111, connector_context: ConnectorContext, task_routes: bool
) -> None:
    a1111.script, a1111.task_routes = HELD, task_routes
    other = a1111.begin("txt2img", {})
    await a1111.until(lambda: held(a1111))
    async with running(a1111, connector_context, lambda: len(a1111.work) == 2, cleanup_timeout=0.3) as run:
        run.scope.cancel()
    assert (a1111.engine.interrupts, other.end) == ([], "running")


async def test_a_cancelled_job_that_waits_is_interrupted_when_its_turn_comes(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    """An interrupt that is sent before it begins would be lost: the flag is cleared then."""
    a1111.script = HELD
    other = a1111.begin("txt2img", {})
    await a1111.until(lambda: held(a1111))
    looks = "/internal/progress"
    async with running(a1111, connector_context, lambda: a1111.count(looks) >= 1) as run:
        seen = a1111.count(looks)
        run.scope.cancel()
        await a1111.until(lambda: a1111.count(looks) >= seen + 3)
        a1111.release(other)
    assert (other.end, a1111.work[1].end) == ("done", "interrupted")
    assert set(a1111.engine.interrupts) == {OURS}


async def test_an_answer_that_is_on_its_way_is_not_interrupted(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(answer_delay=3600)
    async with running(
        a1111, connector_context, lambda: bool(a1111.work) and a1111.work[0].end == "done", cleanup_timeout=0.3
    ) as run:
        run.scope.cancel()
    assert a1111.engine.interrupts == []


async def test_a_deadline_interrupts(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.script = HELD
    context = FakeAttempt(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(PROMPT), context)
    assert caught.value.stage == "service"
    assert a1111.work[0].end == "interrupted"


async def test_a_generation_may_take_longer_than_any_call(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(seconds=0.6)
    limits = {"timeout": 0.2, "read_timeout": 0.2}
    async with open_a1111(a1111.base_url, connector_context, http=limits, call_timeout=0.2) as connector:
        assert (await run_job(connector, job(PROMPT))).success


async def test_a_server_works_at_one_job_at_a_time(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    """A second one would wait there, where nobody sees it, and where it can't be cancelled."""
    a1111.script = Script(seconds=0.05)
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(run_job, connector, job(PROMPT, id=f"job-{number}"))
                for number in (1, 2, 3):
                    await a1111.until(lambda number=number: len(a1111.work) >= number)  # type: ignore[misc]
                    assert all(work.over.is_set() for work in a1111.work[:-1])
    assert [work.end for work in a1111.work] == ["done"] * 3


@pytest.mark.parametrize("end", ["running", "failed"])
async def test_what_an_earlier_attempt_has_left_running_is_stopped_first(
    a1111: FakeA1111, connector_context: ConnectorContext, end: str
) -> None:
    """Its worker has died, and the server goes on. One that failed is still called active, and is left alone."""
    a1111.script = HELD if end == "running" else Script(failure=Failure())
    earlier = a1111.begin("txt2img", {"force_task_id": OURS})
    await a1111.until(lambda: held(a1111) if end == "running" else earlier.over.is_set())
    a1111.script = Script()
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector:
            result = await run_job(connector, job(PROMPT, attempt=2))
    assert result.success
    assert [work.end for work in a1111.work] == ["interrupted" if end == "running" else "failed", "done"]
    assert set(a1111.engine.interrupts) == ({OURS} if end == "running" else set())


async def test_an_earlier_attempt_is_no_reason_to_interrupt_somebody_else(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = HELD
    other = a1111.begin("txt2img", {"force_task_id": "task(job-11-1)"})
    await a1111.until(lambda: held(a1111))
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector, trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(PROMPT, attempt=2))
            await a1111.until(lambda: len(a1111.work) == 2)
            a1111.release()
    assert (a1111.engine.interrupts, other.end) == ([], "done")


async def test_an_upload_that_failed_is_no_reason_to_generate_again(a1111: FakeA1111, tmp_path: Path) -> None:
    folder, keep = tmp_path / "assets", KeepSettings(folder=tmp_path / "kept")
    folder.write_text("not a folder")
    settings = local_storage(folder, keep=keep)
    payload = PROMPT | {"batch_size": 2}
    async with (
        open_asset_storage(settings) as saver,
        open_a1111(a1111.base_url, ConnectorContext(assets=saver)) as connector,
    ):
        with pytest.raises(AssetError) as caught:
            await run_job(connector, job(payload))
        assert caught.value.paid
        folder.unlink()
        result = await run_job(connector, job(payload, attempt=2))
    assert a1111.count(GENERATE) == 1
    assert len(result.output_files) == len(stored(folder)) == 2
    assert result.data["model_used"] == "dreamy"


async def test_a_worker_without_storage_says_so_before_the_work(a1111: FakeA1111) -> None:
    async with (
        open_asset_storage(StorageSettings()) as saver,
        open_a1111(a1111.base_url, ConnectorContext(assets=saver)) as connector,
    ):
        with pytest.raises(ConfigError):
            await run_job(connector, job(PROMPT))
    assert a1111.requests == []
