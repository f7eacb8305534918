"""Departure of a process: leave no job behind that the rest of the fleet can't see."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.worker_queue import Departure
from emp_trio.worker.context import MachineContext

log = structlog.get_logger("emp_trio.machine")

_PAUSE: Final = 0.5  # seconds between checks
_SPEAKS: Final = 8.0  # seconds for which a killed process seems alive (functions/reap.lua)
_HURRY: Final = 2.0  # seconds left after a second signal


class ProcessDeparture:
    """Deregisters a process from the queue.

    Until :meth:`leave`, other processes rely on it to requeue due jobs. Another process that seems to do the same may
    have been killed just now: jobs are left to it only after a later sign of life.
    """

    def __init__(self, context: MachineContext, process: str) -> None:
        self._queue = context.queue
        self._settings = context.settings
        self._process = process
        self._first: Departure | None = None
        self._left: Departure | None = None

    async def leave(self) -> None:
        """Remove the process from the list of reapers. If it was the last one, requeue all delayed jobs.

        Raises the errors of ``RedisPort.call``.
        """
        self._left = self._first = await self._put_back(self._process)

    async def wait_for_successor(self) -> None:
        """Wait for a sign of life of another process, or else for leases of killed ones to expire, and requeue their
        jobs. Takes at most a lease plus 8 s; may be cancelled at any time."""
        if self._left and self._left.leased and self._left.looked is None:
            seconds = round(min(self._left.ends, self._settings.lease), 1)
            log.info("machine.waits", leases=self._left.leased, seconds=seconds, why=_WHY)
        with trio.move_on_after(self._settings.lease + _SPEAKS + _PAUSE):
            while self._left is not None and self._open:
                await trio.sleep(min(_PAUSE, self._left.ends + 0.01) if self._left.looked is None else _PAUSE)
                await self._look_again()

    async def put_back_rest(self) -> None:
        """Requeue delayed jobs now, after :meth:`wait_for_successor` was cut short, unless another process gives a sign
        of life within 2 s. Early retries do no harm."""
        if self._left is None or not self._left.delayed or self._followed:
            return
        with trio.move_on_after(_HURRY, shield=True):
            while self._left is not None and self._open:
                await trio.sleep(_PAUSE / 2)
                await self._look_again()
        if self._left is None or not self._left.delayed or self._followed:
            return
        with trio.move_on_after(_HURRY, shield=True):
            try:
                await self._put_back("", in_doubt=True)
            except EmpTrioError as error:
                log.warning("reap.failed", error=error.message)

    @property
    def _followed(self) -> bool:
        return self._left is not None and self._first is not None and self._left.lived_after(self._first)

    @property
    def _open(self) -> bool:
        """Return whether jobs are left without a process known to requeue them."""
        left = self._left
        if left is None or self._followed:
            return False
        return bool(left.leased) or (bool(left.delayed) and left.looked is not None)

    async def _look_again(self) -> None:
        try:
            reaped = await self._queue.reap(max_crashes=self._settings.max_crashes)
            self._left = await self._put_back("")
            if reaped.broken:  # this moves leases, too
                self._first = self._left
        except EmpTrioError as error:
            log.warning("reap.failed", error=error.message)
            self._left = None

    async def _put_back(self, process: str, *, in_doubt: bool = False) -> Departure:
        back: list[str] = []
        while True:
            left = await self._queue.retry_until_accepted(lambda: self._queue.depart(process, in_doubt=in_doubt))
            back += left.back
            if not (left.back and left.delayed):
                break
        if back:
            log.info("machine.put_back", jobs=len(back), why=_IN_DOUBT if in_doubt else _ALONE)
        return left


_WHY: Final = "a machine was killed and no other one will put its jobs back; a second signal ends the wait"
_ALONE: Final = "no other machine looks after delayed jobs"
_IN_DOUBT: Final = "no other machine has shown that it looks after delayed jobs"
