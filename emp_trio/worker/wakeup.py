"""Wait primitives: a flag that loses no set while nobody waits, and the first of several waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Wakeup:
    """A flag for one waiter: :meth:`wait` returns once for all sets since its last return."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake the current or the next waiter."""
        if not self._event.is_set():  # testing takes a fifth of the time of setting
            self._event.set()

    async def wait(self, limit: float = float("inf")) -> bool:
        """Wait for a set, for at most ``limit`` seconds. Return whether it was set."""
        with trio.move_on_after(limit):
            await self._event.wait()
        was_set = self._event.is_set()
        if was_set:
            self._event = trio.Event()
        return was_set


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of ``waits`` returns, and cancel the others."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel(reason="another one was first")

        for wait in waits:
            nursery.start_soon(one, wait)
