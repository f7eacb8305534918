"""The adopter (opt-in): puts back jobs of workers without leases whose heartbeat has been gone for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.orphans import absent_workers, adopt, gone_since
from emp_trio.worker.context import MachineContext

log = structlog.get_logger("emp_trio.adopter")

_LOOKS: Final = 4  # in the time after which a worker counts as gone
_LONGEST: Final = 15.0  # seconds between two looks


class Adopter:
    """Looks for workers whose jobs nobody will finish: their heartbeat was gone at every look for ``after`` seconds.

    Any number of machines may do so: each job is put back in one step, by one of them.

    Args:
        after: seconds for which a heartbeat must have been gone.
        requeued: called when jobs went back to the queue.
    """

    def __init__(self, context: MachineContext, after: float, requeued: Callable[[], None]) -> None:
        self._queue = context.queue
        self._max_crashes = context.settings.max_crashes
        self._observers = context.observers
        self._after = after
        self._requeued = requeued
        self._gone: dict[bytes, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
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
