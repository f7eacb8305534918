"""Requeue the jobs that emp-trio workers left behind, once, from outside a worker."""

from __future__ import annotations

from typing import Final

import msgspec
import trio

from emp_trio.queue.worker_queue import Departure, WorkerQueue

_PATIENCE: Final = 30.0  # seconds for leases to end, and to tell whether a machine is alive
_PAUSE: Final = 0.25  # seconds between two looks


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What was put in order, and what is left.

    Attributes:
        requeued, failed: jobs whose lease had run out: put back, or (id, reason) failed for good.
        delayed_back: delayed jobs that went back into the queue.
        broken: (id or key, error) of what could not be handled.
        leased, delayed: how many jobs are left so; ``lease_ends`` in how many seconds the last of the leases does.
        watched: whether a worker looks after these.
    """

    requeued: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    delayed_back: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]
    leased: int
    delayed: int
    lease_ends: float
    watched: bool

    @property
    def left(self) -> bool:
        """Whether something is left that nobody looks after, or that nobody can handle."""
        return bool(self.broken) or (bool(self.leased or self.delayed) and not self.watched)


async def reap_once(worker_queue: WorkerQueue, *, max_crashes: int = 3) -> Cleaned:
    """Put back what is due; where no machine looks after the queue, everything else that is ours, too.

    A machine that was killed a moment ago looks alive until it has not looked for what is due for some seconds: it is
    waited for until that is clear.

    Raises:
        NotSent, OutcomeUnknown, ServerRefused: as :meth:`WorkerQueue.retry_until_accepted`, after half a minute.

    Cancellation leaves what was done so far.
    """
    requeued: list[str] = []
    failed: list[tuple[str, str]] = []
    back: list[str] = []
    broken: dict[str, str] = {}
    first: Departure | None = None
    end = trio.current_time() + _PATIENCE
    while True:
        reaped = await worker_queue.retry_until_accepted(
            lambda: worker_queue.reap(max_crashes=max_crashes), patience=_PATIENCE
        )
        left = await worker_queue.retry_until_accepted(worker_queue.depart, patience=_PATIENCE)
        requeued += reaped.requeued
        failed += reaped.failed
        back += [*reaped.due, *left.back]
        broken |= dict(reaped.broken)
        now = trio.current_time()
        first = first or left
        alive = left.looked is not None and left.lived_after(first)
        nothing = not left.leased and not left.delayed
        more = reaped.requeued or reaped.failed or reaped.due or left.back
        if nothing or alive or (broken and not more) or now >= end:
            return Cleaned(
                requeued=tuple(requeued),
                failed=tuple(failed),
                delayed_back=tuple(back),
                broken=tuple(broken.items()),
                leased=left.leased,
                delayed=left.delayed,
                lease_ends=left.ends,
                watched=left.looked is not None,
            )
        if not more:
            await trio.sleep(_PAUSE)
