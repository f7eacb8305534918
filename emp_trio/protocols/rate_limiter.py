"""``RateLimiter``: how much of a service one connector uses at once and per minute, and pauses the service asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import trio

from emp_trio.errors import ServiceError
from emp_trio.retry import RetryPolicy


class LimitsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one connector on one machine; None is no limit.

    Attributes:
        max_concurrent_jobs: blocks of ``limit()`` that may be open at once.
        requests_per_minute: blocks of ``limit()`` that may begin within any minute.
    """

    max_concurrent_jobs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    requests_per_minute: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Window:
    """A rate as starts in a sliding window of time: told the time, it says when one more may start. Pure.

    Args:
        per_minute: starts allowed in any minute; None for no limit. Below 1 the window is longer than a minute.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._count = max(1, int(per_minute)) if per_minute is not None else 0
        self._length = 60.0 * self._count / per_minute if per_minute is not None else 0.0
        self._starts: deque[float] = deque()

    def book(self, now: float) -> float:
        """Book the next start, and return its time (``now`` or later)."""
        if not self._count:
            return now
        while self._starts and self._starts[0] <= now - self._length:
            self._starts.popleft()
        start = now
        if len(self._starts) >= self._count:
            start = max(now, self._starts[-self._count] + self._length, self._starts[-1])
        self._starts.append(start)
        return start

    def give_back(self, start: float) -> None:
        """A booked start will not be used."""
        if start in self._starts:
            self._starts.remove(start)


class RateLimiter:
    """Keeps the jobs of a connector within :class:`LimitsSettings`, and holds pauses for all of them."""

    def __init__(self, settings: LimitsSettings) -> None:
        many = settings.max_concurrent_jobs
        self._places = trio.CapacityLimiter(many) if many is not None else None
        self._window = Window(settings.requests_per_minute)
        self._paused_until = -float("inf")

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Wait for a place, for the rate and for the end of a pause, then hold the place while the block runs.

        Put it around one call or one job; blocks of one task don't nest.

        Raises:
            ServiceError: rate_limit with ``retry_after``, when the wait would not end before the caller's deadline, or
                a pause lasts longer than a service's wait is slept for: the job is better handed back.

        A cancelled wait gives its turn back.
        """
        if self._places is None:
            await self._turn()
            yield
            return
        async with self._places:
            await self._turn()
            yield

    def slow_down(self, seconds: float) -> None:
        """Let the whole connector wait for ``seconds``: no ``limit()`` block and no call that starts work begins."""
        self._paused_until = max(self._paused_until, trio.current_time() + seconds)

    async def pause_over(self) -> None:
        """Wait until no pause is on. Raises as :meth:`limit` does."""
        await trio.lowlevel.checkpoint_if_cancelled()  # a turn of the scheduler for each job costs more than the check
        while (now := trio.current_time()) < self._paused_until:
            self._refuse_if_late(self._paused_until, now)
            await trio.sleep_until(self._paused_until)

    async def _turn(self) -> None:
        while True:
            await self.pause_over()
            now = trio.current_time()
            start = self._window.book(now)
            try:
                self._refuse_if_late(start, now)
                if start > now:
                    await trio.sleep_until(start)
            except BaseException:
                self._window.give_back(start)
                raise
            if trio.current_time() >= self._paused_until:
                return
            self._window.give_back(start)  # a pause began meanwhile: everybody queues again behind it

    def _refuse_if_late(self, start: float, now: float) -> None:
        wait = start - now
        asked_too_much = self._paused_until - now > RetryPolicy().longest_stated
        if asked_too_much or (wait > 0 and start >= trio.current_effective_deadline()):
            raise ServiceError(
                f"the limits of this service leave no room for another call for {wait:.3g} s",
                type="rate_limit",
                reason="requests_per_minute",
                retry=True,
                retry_after=max(wait, self._paused_until - now),
            )
