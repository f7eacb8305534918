"""The leases this machine holds: renewed together, lost one by one."""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.verbs import LeaseRef, Verbs
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.signals import Signal

log = structlog.get_logger("emp_trio.leases")

_STUCK: Final = "its connector goes on although it was told to stop; its lease is left to run out"


class Leases:
    """The running attempts by job id, and the tasks that speak for all of them: renewal, progress, and the end of those
    whose lease could not be renewed."""

    def __init__(self, verbs: Verbs, settings: WorkerSettings) -> None:
        self._verbs = verbs
        self._settings = settings
        self._attempts: dict[str, Attempt] = {}
        self._talk = Signal()
        self._doubt = Signal()
        self._sooner = Signal()
        self._next_end = math.inf
        self._failing = False
        self._idle = trio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt) -> None:
        """Hold the lease of an attempt from now on."""
        if not self._attempts:
            self._idle = trio.Event()
        before = self._attempts.get(attempt.lease.job_id)
        if before is not None:  # the job was cancelled, put back and claimed anew before we heard of it
            before.end("lease_lost")
        self._attempts[attempt.lease.job_id] = attempt
        if attempt.stop_at < self._next_end:
            self._sooner.set()

    def drop(self, lease: LeaseRef) -> None:
        """The attempt of this lease is settled, or its lease is gone."""
        found = self._attempts.get(lease.job_id)
        if found is not None and found.lease == lease:
            del self._attempts[lease.job_id]
            if not self._attempts:
                self._idle.set()

    def cancel(self, job_id: str) -> None:
        """The user cancelled the job: stop its attempt if it runs here."""
        attempt = self._attempts.get(job_id)
        if attempt is not None:
            log.info("job.cancelled", job=job_id, slot=attempt.worker_id)
            attempt.end("cancelled")

    def doubt(self) -> None:
        """Somebody's lease may be gone: find out now which, and why."""
        self._doubt.set()

    def end_all(self) -> None:
        """Hand back what still runs."""
        for attempt in list(self._attempts.values()):
            attempt.end("drain")

    async def wait_idle(self) -> None:
        """Wait until no attempt is left."""
        while self._attempts:
            await self._idle.wait()

    def has_progress(self) -> None:
        """An attempt has something to say."""
        self._talk.set()

    def say_last(self, attempt: Attempt) -> None:
        """Publish what an attempt that failed has reported last, without waiting for Redis."""
        said = attempt.take_progress()
        if said is not None:
            self._verbs.progress_soon([said])

    async def renew(self) -> None:
        """Renew all leases every ``renew_every`` seconds; ends only by cancellation.

        One that is refused stops its attempt at once; one that could not be renewed in time does so in :meth:`expire`.
        """
        pause = self._settings.renew_every
        while True:
            await self._doubt.wait(pause)
            pause = self._settings.renew_every
            if not await self._renew():
                pause = min(pause, 0.25)

    async def _renew(self) -> bool:
        """Renew all leases now. Returns whether Redis answered."""
        for attempt in [a for a in self._attempts.values() if a.stuck]:
            log.error("job.stuck", job=attempt.lease.job_id, slot=attempt.worker_id, hint=_STUCK)
            attempt.end("lease_lost")
            self.drop(attempt.lease)
        attempts = list(self._attempts.values())
        if not attempts:
            return True
        sent = trio.current_time()
        try:
            gone = await self._verbs.renew([a.lease for a in attempts], lease=self._settings.lease)
        except EmpTrioError as error:
            if not self._failing:  # once per trouble, however long it takes
                log.warning("leases.not_renewed", jobs=len(attempts), error=error.message)
            self._failing = True
            return False
        self._failing = False
        for attempt in attempts:
            why = gone.get(attempt.lease.job_id)
            if why is None:
                attempt.renewed(sent + self._settings.lease)
            elif attempt.ending is None and self._attempts.get(attempt.lease.job_id) is attempt:
                log.warning("lease.gone", job=attempt.lease.job_id, slot=attempt.worker_id, why=why)
                attempt.end("cancelled" if why == "cancelled" else "lease_lost")
        return True

    async def expire(self) -> None:
        """Stop each attempt before its lease ends, where it was not renewed in time; ends only by cancellation."""
        while True:
            now = trio.current_time()
            running = [attempt for attempt in self._attempts.values() if attempt.ending is None]
            for attempt in running:
                if attempt.stop_at <= now:
                    attempt.end("lease_lost")
            self._next_end = min((a.stop_at for a in running if a.ending is None), default=math.inf)
            await self._sooner.wait(self._next_end - now)

    async def publish_progress(self) -> None:
        """Publish what attempts report, at most once per ``progress_every`` for each; ends only by cancellation."""
        while True:
            await self._talk.wait()
            speaking = [(a, said) for a in self._attempts.values() if (said := a.take_progress()) is not None]
            if speaking:
                try:
                    gone = await self._verbs.progress([said for _, said in speaking])
                except EmpTrioError as error:
                    log.debug("progress.not_published", jobs=len(speaking), error=error.message)
                    for attempt, _ in speaking:
                        attempt.not_published()
                    self._talk.set()
                else:
                    if any(job_id in self._attempts for job_id in gone):
                        self.doubt()
            await trio.sleep(self._settings.progress_every)
