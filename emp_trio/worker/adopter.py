"""Adopter (opt-in): requeue jobs of workers without leases whose heartbeat has been missing for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.orphans import absent_workers, adopt, gone_since
from emp_trio.worker.context import MachineContext

log = structlog.get_logger("emp_trio.adopter")

_LOOKS: Final = 4  # checks within the time after which a worker counts as gone
_LONGEST: Final = 15.0  # maximum seconds between checks


class Adopter:
    """Requeues jobs of workers whose heartbeat was missing at every check for ``after`` seconds.

    Any number of machines may run it: one of them requeues each job, atomically.

    Args:
        after: seconds for which a heartbeat must be missing.
        requeued: called after jobs were requeued.
    """

    def __init__(self, context: MachineContext, after: float, requeued: Callable[[], None]) -> None:
        self._queue = context.queue
        self._max_crashes = context.settings.max_crashes
        self._observers = context.observers
        self._after = after
        self._requeued = requeued
        self._gone: dict[bytes, float] = {}

    async def run(self) -> None:
        """Check periodically until cancelled."""
        while True:
            try:
                await self._look()
            except EmpTrioError as error:
                log.warning("adopt.failed", error=error.message)
            await trio.sleep(min(_LONGEST, self._after / _LOOKS))

    async def _look(self) -> None:
        absent = await absent_workers(self._queue)
        now = trio.current_time()
        self._gone = gone_since(self._gone, absent, now)
        for worker in [worker for worker, since in self._gone.items() if now - since >= self._after]:
            adopted = await adopt(self._queue, worker, max_crashes=self._max_crashes)
            name = worker.decode("utf-8", "replace")
            self._observers.put_back("worker_gone", adopted.requeued, adopted.failed, worker=name)
            if adopted.requeued:
                self._requeued()
