"""Reaper: requeue jobs of any machine whose lease expired, and delayed jobs that are due."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.worker.context import MachineContext
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.reaper")

_SHORTEST = 0.05  # minimum seconds between runs
_JITTER = 1.2  # maximum pause between runs, as a multiple of reap_every
# In pauses between renewals: the silence of all processes that means that the server was away, and the time in which
# leases may be renewed then. Each process speaks once per pause; the silence must be longer than the grace.
_SILENCE, _GRACE = 1.6, 1.2


class Reaper:
    """Runs when something is due, at least every ``reap_every`` seconds, with jitter between machines.

    Args:
        process: nonce of this process.
        requeued: called after jobs were requeued, because Redis does not push a connection's own changes.
    """

    def __init__(self, context: MachineContext, process: str, requeued: Callable[[], None]) -> None:
        self._queue = context.queue
        self._settings = context.settings
        self._observers = context.observers
        self._process = process
        self._requeued = requeued
        self._look = Wakeup()
        self._seen = 0  # the server's time in ms of the last look; the next one comes within so many seconds
        self._longest = _JITTER * self._settings.reap_every + self._settings.renew_every
        self._not_before = -math.inf
        self._running = trio.CancelScope()

    def hold_off(self) -> None:
        """Wait ``renew_every`` seconds after an outage of Redis, so that holders can renew leases or store outcomes."""
        self._not_before = trio.current_time() + self._settings.renew_every

    def reap_sooner(self) -> None:
        """Run sooner, because a new job may be due soon."""
        self._look.set()

    def stop(self) -> None:
        """Stop, because the machine leaves."""
        self._running.cancel(reason="the machine leaves the fleet")

    async def run(self) -> None:
        """Reap until :meth:`stop`."""
        with self._running:
            await self._reap()

    async def _reap(self) -> None:
        while True:
            if trio.current_time() < self._not_before:
                await trio.sleep_until(self._not_before)
                continue
            wait = self._settings.reap_every
            try:
                reaped = await self._queue.reap(
                    process=self._process,
                    max_crashes=self._settings.max_crashes,
                    until=self._seen and self._seen + round(1000 * self._longest),
                    silence=_SILENCE * self._settings.renew_every,
                    grace=_GRACE * self._settings.renew_every,
                )
            except EmpTrioError as error:
                log.warning("reap.failed", error=error.message)
            else:
                self._seen = reaped.at
                self._observers.put_back("lease_expired", reaped.requeued, reaped.failed)
                for job_id, why in reaped.broken:
                    log.error("job.broken", job=job_id, error=why, hint="a key is not what it should be")
                if reaped.requeued or reaped.due:
                    self._requeued()
                if reaped.next_due is not None:
                    wait = min(wait, max(reaped.next_due, _SHORTEST))
            await trio.sleep(_SHORTEST)
            await self._look.wait(wait * random.uniform(1.0, _JITTER))
