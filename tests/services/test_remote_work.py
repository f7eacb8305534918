"""Work under an id is never lost track of, whenever the cancel comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from emp_trio.errors import NotSent, ServiceError
from emp_trio.services.remote_work import run_announced_work, run_remote_work
from emp_trio.testing.attempt import FakeAttempt
from tests.services.support import job

GRACE = 5.0


class Service:
    """A service that takes its time to start work and never ends it by itself."""

    def __init__(self, *, start: float = 1.0, usable: bool = True) -> None:
        self.start_seconds = start
        self.usable_answer = usable
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.cancel_error: Exception | None = None
        self.waiting = trio.Event()
        self.end = trio.Event()

    async def usable(self, found: str) -> bool:
        await trio.sleep(1)
        return self.usable_answer

    async def start(self) -> str:
        await trio.sleep(self.start_seconds)
        self.started.append(f"work-{len(self.started) + 1}")
        return self.started[-1]

    async def wait(self, found: str) -> str:
        self.waiting.set()
        await self.end.wait()
        return f"result of {found}"

    async def cancel(self, found: str) -> None:
        await trio.sleep(1)
        if self.cancel_error is not None:
            raise self.cancel_error
        self.cancelled.append(found)

    async def run(self, context: FakeAttempt, checkpoint: dict[str, Any] | None = None) -> str:
        return await run_remote_work(
            job(checkpoint=checkpoint),
            context,
            key="id",
            usable=self.usable,
            start=self.start,
            wait=self.wait,
            cancel=self.cancel,
            grace=GRACE,
        )


class Forgetful(FakeAttempt):
    """A reporter whose queue is away."""

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        raise NotSent("redis is away")


@asynccontextmanager
async def running(service: Service, context: FakeAttempt, **options: Any) -> AsyncIterator[trio.Nursery]:
    """The work runs in the nursery until the block cancels it; the block ends when it is over."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: service.run(context, **options))
        yield nursery


async def test_work_is_started_remembered_and_waited_for(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    service.end.set()
    assert await service.run(reporter) == "result of work-1"
    assert reporter.checkpoint == {"id": "work-1"}
    assert service.cancelled == []


@pytest.mark.parametrize(("stop", "cancelled"), [(True, ["work-1"]), (False, [])])
@pytest.mark.parametrize("moment", ["while starting", "while waiting"])
async def test_a_cancel_stops_the_work_upstream_only_where_nobody_will_adopt_it(
    stop: bool, cancelled: list[str], moment: str, autojump_clock: MockClock
) -> None:
    service, reporter = Service(), FakeAttempt(stop_remote_work=stop)
    async with running(service, reporter) as nursery:
        if moment == "while starting":
            await trio.sleep(0.5)
        else:
            await service.waiting.wait()
        nursery.cancel_scope.cancel()
    assert service.started == ["work-1"]
    assert reporter.checkpoint == {"id": "work-1"}
    assert service.cancelled == cancelled


async def test_work_is_not_started_after_a_cancel(autojump_clock: MockClock) -> None:
    service = Service()
    with trio.CancelScope() as scope:
        scope.cancel()
        await service.run(FakeAttempt())
    assert service.started == []


async def test_a_start_that_hangs_is_given_up_after_the_grace(autojump_clock: MockClock) -> None:
    service, reporter = Service(start=3600), FakeAttempt()
    async with running(service, reporter) as nursery:
        await trio.sleep(1)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(GRACE)
    assert service.started == []


async def test_a_cancel_that_hangs_upstream_is_given_up_after_the_grace(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()

    async def hang(found: str) -> None:
        await trio.sleep_forever()

    service.cancel = hang  # type: ignore[method-assign]
    async with running(service, reporter) as nursery:
        await service.waiting.wait()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(GRACE)


async def test_a_failed_cancel_does_not_replace_the_reason(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    service.cancel_error = ServiceError("no", status=500)
    async with running(service, reporter) as nursery:
        await service.waiting.wait()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


async def test_work_that_could_not_be_remembered_is_stopped(autojump_clock: MockClock) -> None:
    service, reporter = Service(), Forgetful(stop_remote_work=False)
    with pytest.raises(NotSent):
        await service.run(reporter)
    assert service.cancelled == ["work-1"]


async def test_an_error_of_the_start_comes_out_alone(autojump_clock: MockClock) -> None:
    service = Service()

    async def refuse() -> str:
        raise ServiceError("bad request", status=400)

    service.start = refuse  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="bad request"):
        await service.run(FakeAttempt())


async def test_remembered_work_is_adopted(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    service.end.set()
    assert await service.run(reporter, {"id": "work-0"}) == "result of work-0"
    assert service.started == []


async def test_remembered_work_that_is_of_no_use_is_started_anew(autojump_clock: MockClock) -> None:
    service, reporter = Service(usable=False), FakeAttempt()
    service.end.set()
    assert await service.run(reporter, {"id": "work-0"}) == "result of work-1"
    assert reporter.checkpoint == {"id": "work-1"}


async def test_what_else_an_earlier_attempt_remembered_is_kept(autojump_clock: MockClock) -> None:
    service, reporter = Service(usable=False), FakeAttempt()
    service.end.set()
    await service.run(reporter, {"id": "work-0", "calls": 1})
    assert reporter.checkpoint == {"id": "work-1", "calls": 1}


async def test_a_cancel_while_adopting_stops_the_adopted_work(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    async with running(service, reporter, checkpoint={"id": "work-0"}) as nursery:
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert service.cancelled == ["work-0"]


@pytest.mark.parametrize("checkpoint", [None, {}, {"id": 7}, {"id": ""}, {"other": "work-0"}])
async def test_a_checkpoint_without_an_id_is_no_work(
    checkpoint: dict[str, Any] | None, autojump_clock: MockClock
) -> None:
    service, reporter = Service(), FakeAttempt()
    service.end.set()
    assert await service.run(reporter, checkpoint) == "result of work-1"


async def announced(
    service: Service, context: FakeAttempt, *, checkpoint: dict[str, Any] | None = None, then: float = 3600
) -> str:
    """Work whose id comes in the middle of the call that runs it."""

    async def run(known: Callable[[str], Awaitable[None]]) -> str:
        work = await service.start()
        await known(work)
        service.waiting.set()
        await trio.sleep(then)
        return f"stream of {work}"

    return await run_announced_work(
        job(checkpoint=checkpoint),
        context,
        key="id",
        usable=service.usable,
        run=run,
        wait=service.wait,
        cancel=service.cancel,
        grace=GRACE,
    )


async def test_work_that_announces_its_id_is_remembered_and_run_to_its_end(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    assert await announced(service, reporter, then=20) == "stream of work-1"
    assert reporter.checkpoint == {"id": "work-1"}
    assert service.cancelled == []


@pytest.mark.parametrize(("stop", "cancelled"), [(True, ["work-1"]), (False, [])])
@pytest.mark.parametrize(("moment", "seconds"), [("before", 0.5), ("after", 0.0)])
async def test_a_cancel_waits_for_the_id_and_not_for_the_end(
    stop: bool, cancelled: list[str], moment: str, seconds: float, autojump_clock: MockClock
) -> None:
    service, reporter = Service(), FakeAttempt(stop_remote_work=stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(announced, service, reporter)
        if moment == "before":
            await trio.sleep(0.5)
        else:
            await service.waiting.wait()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began == pytest.approx(seconds + stop)  # the cancel upstream takes a second
    assert reporter.checkpoint == {"id": "work-1"}
    assert service.cancelled == cancelled


async def test_announced_work_of_an_earlier_attempt_is_waited_for(autojump_clock: MockClock) -> None:
    service, reporter = Service(), FakeAttempt()
    service.end.set()
    assert await announced(service, reporter, checkpoint={"id": "work-0"}) == "result of work-0"
    assert service.started == []
