"""Stop a call at any of its checkpoints: count them in one run, and cancel at the k-th of another."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Stepped(Generic[T]):
    """How a call ended.

    Attributes:
        steps: checkpoints passed until it was cancelled, by the call and the tasks it started.
        returned: what it returned; None where it was cancelled.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.returned: T | None = None


class _Counter(trio.abc.Instrument):
    def __init__(self, stepped: Stepped[T], scope: trio.CancelScope, at: int | None) -> None:
        self._stepped = stepped
        self._scope = scope
        self._at = at
        self._root = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by Trio when a task has come to its next checkpoint, or its end."""
        if self._scope.cancel_called:
            return
        above: trio.lowlevel.Task | None = task
        while above is not self._root:
            if above is None:
                return
            above = above.parent_nursery.parent_task if above.parent_nursery is not None else None
        self._stepped.steps += 1
        if self._stepped.steps == self._at:
            self._scope.cancel()


async def run_steps(
    call: Callable[[], Awaitable[T]], *, cancel_at: int | None = None, seconds: float = math.inf
) -> Stepped[T]:
    """Run ``call`` in a task of its own.

    Args:
        cancel_at: the checkpoint, counted from 1, at which it is cancelled; None for never.
        seconds: after which it is cancelled in any case.

    Raises:
        Exception: what ``call`` raises.
    """
    stepped: Stepped[T] = Stepped()
    failed: list[Exception] = []

    async def run() -> None:
        with trio.move_on_after(seconds) as scope:
            counter = _Counter(stepped, scope, cancel_at)
            trio.lowlevel.add_instrument(counter)
            try:
                stepped.returned = await call()
            except Exception as error:  # noqa: BLE001 - raised below, outside the nursery, so that it comes alone
                failed.append(error)
            finally:
                trio.lowlevel.remove_instrument(counter)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
    if failed:
        raise failed[0]
    return stepped
