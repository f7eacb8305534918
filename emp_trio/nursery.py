"""Nurseries for background tasks, and the selection of one error from an exception group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from emp_trio.errors import EmpTrioError

T = TypeVar("T")


def errors_in(error: BaseException) -> Iterator[BaseException]:
    """Yield the leaf errors of an error, which may be a nested group."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from errors_in(one)
    else:
        yield error


def leading_error(error: BaseException) -> BaseException:
    """Return the main error of a group: an EmpTrioError without retry, else any EmpTrioError, else the first."""

    def rank(item: BaseException) -> int:
        if isinstance(item, EmpTrioError):
            return 1 if item.retry else 0
        return 2 if isinstance(item, Exception) else 3

    return min(errors_in(error), key=rank)


def without_cancelled(error: BaseException) -> BaseException | None:
    """Remove Cancelled from an error; return None if nothing is left."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


@contextmanager
def leading_error_raised() -> Iterator[None]:
    """Replace an exception group raised by the block with its :func:`leading_error`."""
    try:
        yield
    except ExceptionGroup as group:
        raise leading_error(group) from group


@contextmanager
def lone_error_raised() -> Iterator[None]:
    """Where the block raises a group of one error, raise that error: it is somebody's who knows of no nursery."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for background tasks, cancelled at the end of the block.

    An error of the block is raised as it is, not in a group.

    Raises:
        BaseExceptionGroup: a task failed, or the block raised a group.
    """
    with lone_error_raised():
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel(reason="the block that the tasks serve has ended")


@asynccontextmanager
async def outliving(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a context manager so that a cancellation ends the block before the resource is closed.

    A separate task enters and exits it, shielded while it is open, so the block can use the resource for its cleanup.
    Opening is not shielded.
    """
    ended = trio.Event()

    async def hold(*, task_status: trio.TaskStatus[T]) -> None:
        with trio.CancelScope() as scope:
            async with manager as opened:
                scope.shield = True
                task_status.started(opened)
                await ended.wait()

    async with open_background() as nursery:
        opened: T = await nursery.start(hold)
        try:
            yield opened
        finally:
            ended.set()
