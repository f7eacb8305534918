"""Work that runs in a service under an id: started once, remembered, adopted by a next attempt, stopped when asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import EmpTrioError
from emp_trio.jobs import Job

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def run_remote_work(
    job: Job,
    context: AttemptContext,
    *,
    key: str,
    usable: Callable[[str], Awaitable[bool]],
    start: Callable[[], Awaitable[str]],
    wait: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
    grace: float,
) -> T:
    """Start work in a service, or adopt it, and wait for its end.

    The id is remembered before anything else happens. A cancel that arrives while ``start`` is under way doesn't tear
    it in two (the id of work that is already running and paid for would be lost): it only limits the time that is left.

    Args:
        key: name of the id in the checkpoint.
        usable: whether work that an earlier attempt remembered is still worth waiting for; if not, new work is
            started.
        start: one short call, with a time limit of its own, that starts the work and returns its id.
        wait: waits for the work's end and returns what the caller wants of it.
        cancel: stops the work upstream.
        grace: seconds that ``start`` still has after a cancel, and that ``cancel`` has.

    Raises:
        trio.Cancelled: after the work was stopped upstream, where ``context.stop_remote_work`` says so, or where its id
            could not be remembered: nobody could adopt it.
        Exception: whatever ``start``, ``wait`` or the reporter raise.
    """

    async def run(known: Callable[[str], Awaitable[None]]) -> T:
        work = await start()
        assert work, "start returned no id"
        await known(work)
        return await wait(work)

    return await run_announced_work(
        job, context, key=key, usable=usable, run=run, wait=wait, cancel=cancel, grace=grace
    )


async def run_announced_work(
    job: Job,
    context: AttemptContext,
    *,
    key: str,
    usable: Callable[[str], Awaitable[bool]],
    run: Callable[[Callable[[str], Awaitable[None]]], Awaitable[T]],
    wait: Callable[[str], Awaitable[T]],
    cancel: Callable[[str], Awaitable[object]],
    grace: float,
) -> T:
    """:func:`run_remote_work` for work whose start and end are one call, such as a stream that begins with the id.

    Args:
        run: starts the work and waits for its end. It awaits the function that it is given with the id as soon as it
            has it; a cancel before that only limits the time that is left, a cancel after it comes at once.
        wait: waits for the end of work that an earlier attempt remembered.
        key, usable, cancel, grace: as of :func:`run_remote_work`, which also says what is raised.
    """
    found = (job.checkpoint or {}).get(key)
    work: str | None = found if isinstance(found, str) and found else None
    remembered = work is not None

    try:
        if work is not None and not await usable(work):
            work = None
        if work is not None:
            return await wait(work)

        async def begin(scope: trio.CancelScope) -> T:
            async def known(started: str) -> None:
                nonlocal work, remembered
                work, remembered = started, False
                await context.save_checkpoint(
                    {**(job.checkpoint or {}), key: started}
                )  # also how often was paid before
                remembered = True
                scope.shield = False

            return await run(known)

        return await uninterrupted(begin, grace=grace)
    except BaseException as error:
        cancelled = not isinstance(error, Exception)  # Cancelled, or a group of nothing else
        if work is not None and (not remembered or (cancelled and context.stop_remote_work)):
            await stop_work(cancel, work, grace)
        raise


async def stop_work(cancel: Callable[[str], Awaitable[object]], work: str, grace: float) -> None:
    """Call ``cancel`` with the id of ``work``, also while this task is being cancelled; within ``grace`` seconds.

    What goes wrong is logged: the attempt ends for another reason, which matters more.
    """
    with trio.move_on_after(grace, shield=True) as scope:
        try:
            await cancel(work)
        except EmpTrioError as error:
            log.warning("upstream.not_stopped", id=work, error=error.message)
    if scope.cancelled_caught:
        log.warning("upstream.not_stopped", id=work, seconds=grace)


async def uninterrupted(call: Callable[[trio.CancelScope], Awaitable[T]], *, grace: float) -> T:
    """Run ``call`` in a shielded scope, which it may open when it can be cancelled; a cancel from outside before that
    limits its time to ``grace`` and is raised after it."""
    await trio.lowlevel.checkpoint_if_cancelled()  # work that nobody wants any more is not started
    results: list[Any] = []
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as scope:
            nursery.start_soon(_shorten, scope, grace)
            try:
                results.append(await call(scope))
            except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, so that it comes alone
                failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    result: T = results[0]
    return result


async def _shorten(scope: trio.CancelScope, grace: float) -> None:
    """Limit ``scope`` once this task is cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        scope.deadline = trio.current_time() + grace
