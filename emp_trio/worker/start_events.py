"""Hold back the first events of a job until its submitter has announced it.

The fleet's API queues a job, then publishes ``job_submitted`` (0.2 ms later, at times 20), and only then subscribes its
client to the job's events. A job claimed in between starts at once, but its events wait for the announcement: otherwise
clients would miss its start, and webhooks would be out of order. ``emp_trio_submit`` announces atomically, so the
events of its jobs are not held back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Literal

import trio

from emp_trio.queue.messages import announced_job
from emp_trio.queue.worker_queue import Claim, Claims, LeaseRef
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.context import MachineContext
from emp_trio.worker.wakeup import Wakeup

_CONNECTING: Final = 0.005  # seconds from the announcement until the submitter's client is subscribed
_YOUNG: Final = 2.0  # seconds by which the clocks of submitter and Redis may differ
_SHARE: Final = 20  # jobs that seem old wait in vain for at most 1/20 of the time
_TOGETHER: Final = 0.002  # seconds; events due within them are published in one call
_MOST_IDS: Final = 32_768  # minimum number of announcements remembered; at most twice as many
_LONGEST_ID: Final = 512  # maximum characters of a remembered id


def publish_at(
    *, now: float, heard: float | None, pushed: float, age: float | None, vain: float, window: float
) -> float:
    """Return the time at which the first events of a job claimed now may be published.

    Args:
        now: current time; all times are on the same clock, in seconds.
        heard: time of the announcement, or None.
        pushed: time of the last change of the queue by another client; infinity if unknown.
        age: seconds since the job's creation by its submitter's clock, or None.
        vain: time of the last wait without an announcement.
        window: maximum seconds to wait for an announcement.
    """
    if heard is not None:
        return heard + min(_CONNECTING, window)
    made_now = age is not None and abs(age) < window  # its push may have been lost in a change of our own
    if now - pushed > window and not made_now:
        return now
    if age is not None and age >= _YOUNG and now - vain < _SHARE * window:
        return now
    return now + window


class DeferredStart:
    """A job whose first events are held back.

    Args:
        due: Trio time at which its first events are published.
        waiting: all held-back jobs, by job id.

    Attributes:
        published: set once its first events are published.
    """

    __slots__ = ("_attempt", "_waiting", "due", "lease", "published")

    def __init__(self, lease: LeaseRef, due: float, waiting: dict[str, DeferredStart]) -> None:
        self.lease = lease
        self.due = due
        self.published = trio.Event()
        self._attempt: Attempt | None = None
        self._waiting = waiting

    def mute(self, attempt: Attempt) -> None:
        """Hold back the progress of the job's attempt until its first events."""
        if not self.published.is_set():
            self._attempt, attempt.muted = attempt, True

    def publish(self) -> None:
        """Allow publishing, because the first events have been sent."""
        self.published.set()
        if self._attempt is not None:
            self._attempt.unmute()

    def drop(self) -> bool:
        """Discard the events of a job whose lease is lost. Return whether none were published."""
        unpublished = not self.published.is_set()
        if unpublished and self._waiting.get(self.lease.job_id) is self:
            del self._waiting[self.lease.job_id]
        return unpublished


class StartEvents:
    """Marks claimed jobs as running in Redis, and publishes their first events when :func:`publish_at` allows.

    Args:
        renew_now: called if the lease of a claimed job was lost before its start.

    Attributes:
        tracking: whether the server pushes changes of the queue.
    """

    def __init__(self, context: MachineContext, renew_now: Callable[[], None]) -> None:
        settings = context.settings
        self.tracking = True
        self._queue = context.queue
        self._machine = settings.machine_id
        self._unified = settings.unified
        self._window = settings.announcement
        self._renew_now = renew_now
        self._pushed = self._vain = -math.inf
        self._heard: dict[str, float] = {}
        self._heard_before: dict[str, float] = {}
        self._deferred: dict[str, DeferredStart] = {}
        self._changed = Wakeup()

    def pushed(self) -> None:
        """Record a possible change of the queue by another client."""
        self._pushed = trio.current_time()

    def heard(self, message: bytes) -> None:
        """Record a ``job_submitted`` message. Never raises."""
        job_id = announced_job(message)
        if job_id is None or len(job_id) > _LONGEST_ID:
            return
        now = trio.current_time()
        self._heard[job_id] = now
        if len(self._heard) > _MOST_IDS:  # removing the oldest one by one would be quadratic
            self._heard, self._heard_before = {}, self._heard
        deferred = self._deferred.get(job_id)
        if deferred is not None:
            deferred.due = now + min(_CONNECTING, self._window)
            self._changed.set()

    def begin(self, claims: Claims, leases: Sequence[LeaseRef]) -> dict[str, DeferredStart]:
        """Mark claimed jobs as running and publish their first events if allowed, without waiting for Redis.

        Args:
            leases: leases of the jobs, in the same order.

        Returns:
            the held-back jobs, by job id.
        """
        now = trio.current_time()
        announced: list[LeaseRef] = []
        due_now: list[LeaseRef] = []
        deferred: dict[str, DeferredStart] = {}
        for claim, lease in zip(claims.jobs, leases, strict=True):
            if claim.announced:
                announced.append(lease)
            elif (due := self._due(claim, claims.at, now)) <= now:
                due_now.append(lease)
            else:
                before = self._deferred.pop(claim.job_id, None)
                if before is not None:  # it was requeued and claimed again meanwhile
                    before.publish()
                deferred[claim.job_id] = self._deferred[claim.job_id] = DeferredStart(lease, due, self._deferred)
        if announced:  # one message for all, before any progress
            self._queue.start(announced, self._machine if self._unified else "", self._renew_now)
        if due_now:
            self._begin(due_now, "both")
        if deferred:
            self._begin([start.lease for start in deferred.values()], "mark")
            self._changed.set()
        return deferred

    def _begin(self, leases: Sequence[LeaseRef], what: Literal["mark", "tell", "both"]) -> None:
        self._queue.begin(leases, self._machine, self._renew_now, what=what, unified=self._unified)

    async def run(self) -> None:
        """Publish first events when they are due. Runs until cancelled."""
        limit = math.inf
        while True:
            await self._changed.wait(limit)
            now = trio.current_time()
            due = [job_id for job_id, start in self._deferred.items() if start.due <= now + _TOGETHER]
            if due and min(self._deferred[job_id].due for job_id in due) <= now:
                starts = [self._deferred.pop(job_id) for job_id in due]
                self._begin([start.lease for start in starts], "tell")
                for start in starts:
                    start.publish()
                if any(self._heard_at(job_id) is None for job_id in due):
                    self._vain = now
            limit = min((start.due for start in self._deferred.values()), default=math.inf) - now

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
        return publish_at(
            now=now,
            heard=self._heard_at(claim.job_id),
            pushed=self._pushed if self.tracking else math.inf,
            age=age,
            vain=self._vain,
            window=self._window,
        )
