"""The end of a machine's part in the queue: nothing of ours stays behind that the rest of the fleet can't see."""

from __future__ import annotations

from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.verbs import Departure, Verbs
from emp_trio.worker.settings import WorkerSettings

log = structlog.get_logger("emp_trio.machine")

_PAUSE: Final = 0.5  # seconds between two looks at leases that have not ended yet


async def depart(verbs: Verbs, machine_id: str) -> Departure:
    """Take the machine off the list of those that look for what is due; where it was the last one, put all delayed jobs
    back into the queue. Raises as ``RedisPort.call``."""
    back: list[str] = []
    while True:
        left = await verbs.surely(lambda: verbs.depart(machine_id))
        back += left.back
        if not (left.back and left.delayed):
            break
    if back:
        log.info("machine.put_back", jobs=len(back), why="no other machine looks after delayed jobs")
    return left


async def outstay_leases(verbs: Verbs, settings: WorkerSettings, left: Departure) -> None:
    """Where this was the last machine: wait for the leases of machines that were killed, and put back their jobs, which
    nobody else would. Takes a lease's length at most; may be cancelled at any time."""
    if left.leased and left.looked is None:
        log.info("machine.waits", leases=left.leased, seconds=round(min(left.ends, settings.lease), 1), why=_WHY)
    with trio.move_on_after(settings.lease + _PAUSE):
        while left.leased and left.looked is None:
            await trio.sleep(min(_PAUSE, left.ends + 0.01))
            try:
                await verbs.reap(max_crashes=settings.max_crashes)
                left = await verbs.depart()
            except EmpTrioError as error:
                log.warning("reap.failed", error=error.message)
                return


_WHY: Final = "a machine was killed and no other one will put its jobs back; a second signal ends the wait"
