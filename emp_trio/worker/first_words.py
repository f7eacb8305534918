"""The first events of a job, held back until its submitter has announced it.

The fleet's API puts a job into the queue, then publishes ``job_submitted`` (0.2 ms later, at times 20), and only then
connects its client to the job's events. A job that is claimed in between is begun at once, but what is published of it
waits for the announcement: else clients miss its start, and webhooks tell of it out of order. ``emp_trio_submit``
announces in the same moment, so of its jobs nothing is held back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from emp_trio.queue.messages import announced_job
from emp_trio.queue.worker_queue import Claim, Claims, LeaseRef, WorkerQueue
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.wakeup import Wakeup

_CONNECTING: Final = 0.005  # seconds that a submitter needs after its announcement to listen to the job's events
_YOUNG: Final = 2.0  # seconds; the clocks of submitter and Redis may differ by as much
_SHARE: Final = 20  # jobs that seem old wait in vain for at most this part of the time
_TOGETHER: Final = 0.002  # seconds; what is due so soon is told in the same call
_MOST_IDS: Final = 32_768  # announcements that are remembered at the least, and twice as many at the most
_LONGEST_ID: Final = 512  # characters of an id that is


def speaks_at(
    *, now: float, heard: float | None, pushed: float, age: float | None, vain: float, window: float
) -> float:
    """When the first events of a job that was claimed now may be published, in the same time as ``now``.

    Args:
        heard: when the job was announced, or None.
        pushed: when somebody else changed the queue last; infinity where that is not known.
        age: seconds since the job was made by its submitter's clock, or None where it does not say.
        vain: when a wait for an announcement was in vain last.
        window: seconds from now after which nobody will announce it any more.
    """
    if heard is not None:
        return heard + min(_CONNECTING, window)
    made_now = age is not None and abs(age) < window  # its push may have gone under in a change of our own
    if now - pushed > window and not made_now:
        return now
    if age is not None and age >= _YOUNG and now - vain < _SHARE * window:
        return now
    return now + window


class Held:
    """A job of which nothing has been published yet.

    Attributes:
        said: set once its first events are published.
        attempt: its attempt, when there is one.
    """

    __slots__ = ("attempt", "due", "lease", "said")

    def __init__(self, lease: LeaseRef, due: float) -> None:
        self.lease = lease
        self.due = due
        self.said = trio.Event()
        self.attempt: Attempt | None = None

    def speak(self) -> None:
        """From now on everything may be published."""
        self.said.set()
        if self.attempt is not None:
            self.attempt.speak()


class FirstWords:
    """Starts claimed jobs in Redis, and holds back their first events as :func:`speaks_at` says.

    Args:
        doubt: called when the lease of a claimed job was gone before it was started.

    Attributes:
        tracking: whether the server pushes changes of the queue.
    """

    def __init__(self, worker_queue: WorkerQueue, settings: WorkerSettings, doubt: Callable[[], None]) -> None:
        self.tracking = True
        self._queue = worker_queue
        self._machine = settings.machine_id
        self._unified = settings.unified
        self._window = settings.announcement
        self._doubt = doubt
        self._pushed = self._vain = -math.inf
        self._heard: dict[str, float] = {}
        self._heard_before: dict[str, float] = {}
        self._held: dict[str, Held] = {}
        self._changed = Wakeup()

    def pushed(self) -> None:
        """Somebody else changed the queue, or may have."""
        self._pushed = trio.current_time()

    def heard(self, message: bytes) -> None:
        """A ``job_submitted`` message. Never raises."""
        job_id = announced_job(message)
        if job_id is None or len(job_id) > _LONGEST_ID:
            return
        now = trio.current_time()
        self._heard[job_id] = now
        if len(self._heard) > _MOST_IDS:  # taking out the oldest one by one reads all gaps before it each time
            self._heard, self._heard_before = {}, self._heard
        held = self._held.get(job_id)
        if held is not None:
            held.due = now + min(_CONNECTING, self._window)
            self._changed.set()

    def begin(self, claims: Claims) -> None:
        """Mark claimed jobs as running, and publish what may be published of them, without waiting for Redis."""
        now = trio.current_time()
        loud: list[LeaseRef] = []
        tell: list[LeaseRef] = []
        quiet: list[LeaseRef] = []
        for claim in claims.jobs:
            lease = LeaseRef(claim.job_id, claim.token)
            if claim.announced:
                loud.append(lease)
            elif (due := self._due(claim, claims.at, now)) <= now:
                tell.append(lease)
            else:
                quiet.append(lease)
                before = self._held.pop(claim.job_id, None)
                if before is not None:  # it was given back and claimed again meanwhile
                    before.speak()
                self._held[claim.job_id] = Held(lease, due)
        if loud:  # one message for all of them, ahead of anything that they will say themselves
            self._queue.start(loud, self._machine if self._unified else "", self._doubt)
        if tell:
            self._queue.begin(tell, self._machine, self._doubt, what="both", unified=self._unified)
        if quiet:
            self._queue.begin(quiet, self._machine, self._doubt, what="mark", unified=self._unified)
            self._changed.set()

    def held(self, claim: Claim) -> Held | None:
        """What is held back of a claimed job, or None where nothing is."""
        held = self._held.get(claim.job_id)
        return held if held is not None and held.lease.token == claim.token else None

    def forget(self, held: Held) -> bool:
        """The job's lease is gone. Returns whether nothing has been published of it, nor will be."""
        untold = not held.said.is_set()
        if untold and self._held.get(held.lease.job_id) is held:
            del self._held[held.lease.job_id]
        return untold

    async def run(self) -> None:
        """Publish first events when their time has come; ends only by cancellation."""
        limit = math.inf
        while True:
            await self._changed.wait(limit)
            now = trio.current_time()
            due = [job_id for job_id, held in self._held.items() if held.due <= now + _TOGETHER]
            if due and min(self._held[job_id].due for job_id in due) <= now:
                told = [self._held.pop(job_id) for job_id in due]
                self._queue.begin(
                    [held.lease for held in told], self._machine, self._doubt, what="tell", unified=self._unified
                )
                for held in told:
                    held.speak()
                if any(self._heard_at(job_id) is None for job_id in due):
                    self._vain = now
            limit = min((held.due for held in self._held.values()), default=math.inf) - now

    def _heard_at(self, job_id: str) -> float | None:
        at = self._heard.get(job_id)
        return self._heard_before.get(job_id) if at is None else at

    def _due(self, claim: Claim, at: float, now: float) -> float:
        try:
            made = datetime.fromisoformat(claim.fields.get("created_at", b"").decode()).timestamp()
        except (ValueError, OverflowError, OSError):
            age = None
        else:
            age = at - made
        return speaks_at(
            now=now,
            heard=self._heard_at(claim.job_id),
            pushed=self._pushed if self.tracking else math.inf,
            age=age,
            vain=self._vain,
            window=self._window,
        )
