"""Nurseries of services that run beside a block, and the one error out of the groups that nurseries raise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import trio

from emp_trio.errors import EmpTrioError

T = TypeVar("T")


def errors_in(error: BaseException) -> Iterator[BaseException]:
    """The single errors in an error, which may be a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from errors_in(one)
    else:
        yield error


def leading_error(error: BaseException) -> BaseException:
    """The one error that stands for a group: one of ours that forbids a retry, then any of ours, then the first."""

    def rank(item: BaseException) -> int:
        if isinstance(item, EmpTrioError):
            return 1 if item.retry else 0
        return 2 if isinstance(item, Exception) else 3

    return min(errors_in(error), key=rank)


def without_cancelled(error: BaseException) -> BaseException | None:
    """What is left of an error without the cancellations in it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


@contextmanager
def leading_error_raised() -> Iterator[None]:
    """Where the block raises a group of errors, raise :func:`leading_error` in its place."""
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
    """A nursery for tasks that serve the block: they are cancelled at its end, and what it raises comes out as it is.

    Raises:
        BaseExceptionGroup: tasks have failed, too, or the block raised a group.
    """
    with lone_error_raised():
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel(reason="the block that the tasks serve has ended")


@asynccontextmanager
async def outliving(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a context manager so that a cancellation ends the block first, and what was opened only after it.

    It is entered and left in a task of its own, which is shielded once it is open: with it the block can still clean up
    while it is being cancelled. Opening it is cancelled like anything else.
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
