"""Blocking calls to a store, from Trio: in a thread, and ended at once by a cancel.

A thread can't be cancelled, and one that is left behind goes on sending. So a cancel works from two sides: between two
blocks the thread itself asks (:meth:`CancelToken.check`), and inside a block the connections it waits on are cut
(:meth:`CancelToken.on_cancel`), which ends the wait with an error. In both cases the thread has ended when the cancel
is delivered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO, TypeVar

import trio

T = TypeVar("T")


class CancelToken:
    """Tells one blocking call that its caller has been cancelled. Used by the call's thread, but for :meth:`cancel`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callback: Callable[[], None] | None = None
        self.cancelled = False

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have a cancel call ``callback`` (from another thread); call it at once if the cancel has already come."""
        with self._lock:
            self._callback = callback
            if self.cancelled:
                callback()

    def clear(self) -> None:
        """Have a cancel call nothing any more."""
        with self._lock:
            self._callback = None

    def check(self) -> None:
        """Raise ``trio.Cancelled`` if the caller has been cancelled."""
        trio.from_thread.check_cancelled()

    def cancel(self) -> None:
        """End the call's waits, now and from now on."""
        with self._lock:
            self.cancelled = True
            if self._callback is not None:
                self._callback()


class Reader:
    """A file for a store to read, from its beginning; each read is a place at which a cancel is noticed."""

    def __init__(self, file: IO[bytes], cancel: CancelToken) -> None:
        self._file = file
        self._cancel = cancel
        file.seek(0)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, empty at the end. Raises ``trio.Cancelled`` if the caller has been cancelled."""
        self._cancel.check()
        return self._file.read(size)


async def in_thread(call: Callable[[CancelToken], T], limiter: trio.CapacityLimiter) -> T:
    """Run ``call`` in a thread and wait for its end, whatever happens.

    Args:
        call: gets the token that tells it of a cancel.
        limiter: how many such threads there may be; waiting for one is cancellable.

    Raises:
        Exception: what ``call`` raises.
        trio.Cancelled: after a cancel, when the thread has ended. A call that had already done its work by then
            returns its value: what a store has accepted is there.
    """
    token = CancelToken()
    failure: Exception | None = None
    value: list[T] = []

    async def tell_the_thread() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not value and failure is None:
                token.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_the_thread)
        try:
            value.append(await trio.to_thread.run_sync(call, token, limiter=limiter))
        except Exception as error:  # noqa: BLE001  # raised again below, outside the nursery and so outside a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        if token.cancelled:
            await trio.lowlevel.checkpoint()  # the failure is our own doing: the cancel is what happened
        raise failure
    return value[0]
