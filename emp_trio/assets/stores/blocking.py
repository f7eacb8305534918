"""Run blocking calls to a store in a thread, cancellable at once.

A thread can't be cancelled, and an abandoned one would continue to send. So the thread checks for cancellation between
blocks (:meth:`CancelToken.check`), and cancellation cuts the connections that the thread waits on
(:meth:`CancelToken.on_cancel`), which ends the wait with an error. The thread has ended before Cancelled is raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO, TypeVar

import trio

T = TypeVar("T")


class CancelToken:
    """Signals the cancellation of a blocking call. The call's thread uses it, except for :meth:`cancel`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callback: Callable[[], None] | None = None
        self.cancelled = False

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on cancellation, from another thread; at once if already cancelled."""
        with self._lock:
            self._callback = callback
            if self.cancelled:
                callback()

    def clear(self) -> None:
        """Remove the callback."""
        with self._lock:
            self._callback = None

    def check(self) -> None:
        """Raise ``trio.Cancelled`` if the caller has been cancelled."""
        trio.from_thread.check_cancelled()

    def cancel(self) -> None:
        """End current and later waits of the call."""
        with self._lock:
            self.cancelled = True
            if self._callback is not None:
                self._callback()


class Reader:
    """File for a store to read from the beginning. Each read checks for cancellation."""

    def __init__(self, file: IO[bytes], cancel: CancelToken) -> None:
        self._file = file
        self._cancel = cancel
        file.seek(0)

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes; empty at the end. Raise ``trio.Cancelled`` if the caller has been cancelled."""
        self._cancel.check()
        return self._file.read(size)


async def in_thread(call: Callable[[CancelToken], T], limiter: trio.CapacityLimiter) -> T:
    """Run ``call`` in a thread, and always wait for its end.

    Args:
        call: called with the token that signals cancellation.
        limiter: limits the number of threads; waiting for it is cancellable.

    Raises:
        Exception: any error of ``call``.
        trio.Cancelled: after the thread has ended. A call that completed before returns its value instead, because
            the store has accepted the data.
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
        except Exception as error:  # noqa: BLE001  # raised below, outside the nursery's exception group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        if token.cancelled:
            await trio.lowlevel.checkpoint()  # the cancellation caused the failure
        raise failure
    return value[0]
