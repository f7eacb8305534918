"""The time that a generation takes."""

from __future__ import annotations

import msgspec
import trio


class Run(msgspec.Struct, kw_only=True, eq=False):
    """A generation in time, on the service's clock in seconds.

    Attributes:
        began: when it was taken on.
        cancelled: when it was cancelled, or None.
        over: set once it has been cancelled, or made to end before its time.
    """

    began: float
    cancelled: float | None = None
    over: trio.Event = msgspec.field(default_factory=trio.Event)

    @property
    def finished(self) -> bool:
        """Whether it has been made to end before its time."""
        return self.cancelled is None and self.over.is_set()

    def finish(self) -> None:
        """Let it reach its end now."""
        self.over.set()

    def cancel(self, now: float) -> None:
        """Stop it."""
        if not self.over.is_set():
            self.cancelled = now
            self.over.set()

    async def reach(self, after: float) -> bool:
        """Wait until it is ``after`` seconds old; False where it has been cancelled before that."""
        with trio.move_on_at(self.began + after):
            await self.over.wait()
        return self.cancelled is None or self.cancelled >= self.began + after
