"""Jobs of workers that know nothing of leases and are gone for good (queue protocol 4.10, 7.2): found, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import trio

from emp_trio.queue.worker_queue import WorkerQueue

_LISTS: Final = b"jobs:active:"
_STEP: Final = 1000  # keys that Redis looks at in one call, in a fraction of a millisecond
_SHARE: Final = 20  # times that a step took are waited after it: a pass is never more than a twentieth of Redis' time


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of a worker that is gone for good: those that went back to the queue; id and reason of those that failed."""

    requeued: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


def gone_since(before: Mapping[bytes, float], absent: Iterable[bytes], now: float) -> dict[bytes, float]:
    """Since when each absent worker has been absent at every look. Pure.

    Args:
        before: what this gave at the last look.
        absent: workers that have jobs and no heartbeat now.
    """
    return {worker: before.get(worker, now) for worker in absent}


async def absent_workers(worker_queue: WorkerQueue) -> list[bytes]:
    """Ids of the workers that have jobs in their list and no heartbeat. Looks through all keys, in small steps.

    Raises as ``RedisPort.call``.
    """
    found: dict[bytes, None] = {}
    cursor: bytes | str = "0"
    while True:
        began = trio.current_time()
        cursor, keys = await worker_queue.port.call("SCAN", cursor, "MATCH", _LISTS + b"*", "COUNT", _STEP)
        found |= dict.fromkeys(key.removeprefix(_LISTS) for key in keys)
        if cursor == b"0":
            break
        await trio.sleep(_SHARE * (trio.current_time() - began))
    return [
        worker for worker in found if not await worker_queue.port.call("EXISTS", b"worker:" + worker + b":heartbeat")
    ]


async def adopt(worker_queue: WorkerQueue, worker: bytes, *, max_crashes: int, most: int = 100) -> Adopted:
    """Requeue, or fail, up to ``most`` jobs of a worker that is gone; nothing while its heartbeat stands.

    Each has an attempt counted. Jobs under a lease, jobs that ended and jobs of others are left alone. Raises as
    ``RedisPort.call``.
    """
    requeued, failed = await worker_queue.function("adopt", worker, max_crashes, most)
    return Adopted(
        requeued=tuple(job_id.decode("utf-8", "replace") for job_id in requeued),
        failed=tuple((job_id.decode("utf-8", "replace"), why.decode("utf-8", "replace")) for job_id, why in failed),
    )
