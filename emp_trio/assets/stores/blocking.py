"""Blocking calls to a store, from Trio: in a thread, and ended at once by a cancel.

A thread can't be cancelled, and one that is left behind goes on sending. So a cancel works from two sides: between two
blocks the thread itself asks (:meth:`Wire.check`), and inside a block the connections it waits on are cut
(:meth:`Wire.cut`), which ends the wait with an error. In both cases the thread has ended when the cancel is delivered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO, TypeVar

import trio

T = TypeVar("T")


class Wire:
    """What one blocking call hangs on. Its thread uses :meth:`attach`, :meth:`detach` and :meth:`check`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cut: Callable[[], None] | None = None
        self.is_cut = False

    def attach(self, cut: Callable[[], None]) -> None:
        """From now on a cancel calls ``cut`` (from another thread); at once if it has already come."""
        with self._lock:
            self._cut = cut
            if self.is_cut:
                cut()

    def detach(self) -> None:
        """The connections are not this call's any more."""
        with self._lock:
            self._cut = None

    def check(self) -> None:
        """Raise ``trio.Cancelled`` if the caller has been cancelled."""
        trio.from_thread.check_cancelled()

    def cut(self) -> None:
        """End the call's waits, now and from now on."""
        with self._lock:
            self.is_cut = True
            if self._cut is not None:
                self._cut()


class Reader:
    """A file for a store to read, from its beginning; each read is a place at which a cancel is noticed."""

    def __init__(self, file: IO[bytes], wire: Wire) -> None:
        self._file = file
        self._wire = wire
        file.seek(0)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, empty at the end. Raises ``trio.Cancelled`` if the caller has been cancelled."""
        self._wire.check()
        return self._file.read(size)


async def in_thread(call: Callable[[Wire], T], limiter: trio.CapacityLimiter) -> T:
    """Run ``call`` in a thread and wait for its end, whatever happens.

    Args:
        call: gets the wire it has to use.
        limiter: how many such threads there may be; waiting for one is cancellable.

    Raises:
        Exception: what ``call`` raises.
        trio.Cancelled: after a cancel, when the thread has ended. A call that had already done its work by then
            returns its value: what a store has accepted is there.
    """
    wire = Wire()
    failure: Exception | None = None
    value: list[T] = []

    async def cut_on_cancel() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not value and failure is None:
                wire.cut()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_on_cancel)
        try:
            value.append(await trio.to_thread.run_sync(call, wire, limiter=limiter))
        except Exception as error:  # noqa: BLE001  # raised again below, outside the nursery and so outside a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        if wire.is_cut:
            await trio.lowlevel.checkpoint()  # the failure is our own doing: the cancel is what happened
        raise failure
    return value[0]
