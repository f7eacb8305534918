"""One generation on a server: a call that blocks until the images are there, with everything else beside it.

There is no id to fetch a result by, and an interrupt stops whatever runs, whoever asked for it (A1111 reference 10.1,
10.4). So the call alone decides how a generation ends, progress is only watched, and nothing is interrupted that is not
known to be ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.services.a1111.calls import Calls
from emp_trio.services.a1111.errors import interrupted
from emp_trio.services.a1111.payload import Endpoint
from emp_trio.services.a1111.settings import A1111Settings
from emp_trio.services.a1111.status import Meter, State
from emp_trio.services.remote_work import uninterrupted

log = structlog.get_logger(__name__)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a generation: whether it is known to run, whether it waits for others, and how far it is."""

    running: bool = False
    waiting: bool = False
    share: float | None = None
    text: str = ""


class Watch:
    """What can be known of a generation from outside.

    A server that knows its id says whether it runs. With others, what runs is ours if nothing else was there when ours
    was sent: the server works in order.

    Args:
        calls: to the server.
        task_id: its id.
        alone: the server was idle before it was sent.
    """

    def __init__(self, calls: Calls, task_id: str, *, alone: bool) -> None:
        self._calls = calls
        self._task_id = task_id
        self._alone = alone
        self._began = ""

    async def during(self) -> Seen:
        """A look while the call of the generation is open."""
        task = await self._calls.task(self._task_id)
        if task is not None and task.known:
            return Seen(running=task.active, waiting=task.queued, share=task.share, text=task.text)
        if not self._alone:
            return Seen()
        state = await self._calls.state()
        if state.busy:
            self._began = state.began
        return Seen(running=state.busy, share=state.share)

    async def after(self) -> Seen:
        """A look when the call is over or was lost: what has failed may still be called active (10.3)."""
        task = await self._calls.task(self._task_id)
        state = await self._calls.state()
        if task is not None and task.known:
            return Seen(running=task.active and state.busy, waiting=task.queued)
        return Seen(running=state.busy and bool(self._began) and state.began == self._began)


async def generate(
    calls: Calls,
    settings: A1111Settings,
    *,
    task_id: str,
    endpoint: Endpoint,
    body: dict[str, Any],
    context: AttemptContext,
    meter: Meter,
) -> Any:
    """Make images.

    Args:
        calls: to the server.
        settings: intervals and the time for cleanup.
        task_id: the id of this generation, also in ``body``.
        progress, meter: told how far it is.

    Returns:
        the JSON of the answer.

    Raises:
        ServiceError: A1111 refused or failed, somebody else has interrupted it, or the connection broke. Then what is
            ours was interrupted first.
        trio.Cancelled: after the call has returned, or its time for cleanup was over. It is interrupted whatever the
            reason of the cancel: no other attempt could get its result. One that waits for others can't be stopped.
    """
    before = await _state(calls)
    watch = Watch(calls, task_id, alone=before is not None and not before.busy)
    returned = trio.Event()

    async def post(_: trio.CancelScope) -> Any:
        try:
            answer = await calls.generate(endpoint, body)
        except Exception:
            returned.set()
            raise
        returned.set()  # and not where it was given up: the work goes on
        return answer

    failed: EmpTrioError | None = None
    answer: Any = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, watch, settings, context, meter)
        nursery.start_soon(_stop_when_cancelled, calls, watch, settings, returned)
        try:
            answer = await uninterrupted(post, grace=settings.cleanup_timeout)
        except EmpTrioError as error:
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        if isinstance(failed, ServiceError) and failed.maybe_started:
            with _cleanup(settings, shield=True):
                await _stop_lost(calls, watch, settings)
        raise failed
    after = await _state(calls)
    if after is not None and after.interrupted and not after.busy:
        raise interrupted()
    return answer


async def stop_earlier(calls: Calls, settings: A1111Settings, task_ids: Iterable[str]) -> None:
    """Stop what earlier attempts may have left running on this server; within the time for cleanup."""
    with _cleanup(settings, shield=False):
        for task_id in task_ids:
            await _stop_lost(calls, Watch(calls, task_id, alone=False), settings)


@contextmanager
def _cleanup(settings: A1111Settings, *, shield: bool) -> Iterator[None]:
    """Time for stopping a generation. What could not be stopped in it runs on, and the log says so."""
    with trio.move_on_after(settings.cleanup_timeout, shield=shield) as scope:
        yield
    if scope.cancelled_caught:
        log.warning("a1111.not_stopped", seconds=settings.cleanup_timeout)


async def _state(calls: Calls) -> State | None:
    """Whatever runs, or None where the server does not say."""
    try:
        return await calls.state()
    except ServiceError as error:
        log.debug("a1111.state_unknown", error=error.message)
        return None


async def _follow(watch: Watch, settings: A1111Settings, context: AttemptContext, meter: Meter) -> None:
    """Report progress until cancelled. Its failures are nobody's concern."""
    while True:
        await trio.sleep(settings.progress_interval)
        try:
            seen = await watch.during()
        except EmpTrioError as error:
            log.debug("a1111.progress_unknown", error=error.message)
            continue
        if seen.running:
            context.report(meter.move(seen.share), "A1111 is at work")
        elif seen.waiting:
            context.report(meter.value, f"waiting for other jobs of the server: {seen.text or 'queued'}")


async def _stop_when_cancelled(calls: Calls, watch: Watch, settings: A1111Settings, returned: trio.Event) -> None:
    """Once this task is cancelled, interrupt the generation again and again until its call has returned."""
    try:
        await trio.sleep_forever()
    finally:
        if not returned.is_set():
            with _cleanup(settings, shield=True):
                while not returned.is_set():
                    await _interrupt(calls, watch)
                    with trio.move_on_after(settings.interrupt_interval):
                        await returned.wait()


async def _interrupt(calls: Calls, watch: Watch) -> None:
    try:
        if (await watch.during()).running:
            await calls.interrupt()
    except EmpTrioError as error:
        log.warning("a1111.not_interrupted", error=error.message)


async def _stop_lost(calls: Calls, watch: Watch, settings: A1111Settings) -> None:
    """Stop a generation that has no call any more, and come back when it neither runs nor waits."""
    try:
        while (seen := await watch.after()).running or seen.waiting:
            if seen.running:
                await calls.interrupt()
            await trio.sleep(settings.interrupt_interval)
    except EmpTrioError as error:
        log.warning("a1111.not_interrupted", error=error.message)
