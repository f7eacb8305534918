"""The leases this machine holds: renewed together, lost one by one."""

from __future__ import annotations

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.verbs import Verbs
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.signals import Signal

log = structlog.get_logger("emp_trio.leases")


class Leases:
    """The running attempts by job id, and the two tasks that speak for all of them: renewal and progress."""

    def __init__(self, verbs: Verbs, settings: WorkerSettings) -> None:
        self._verbs = verbs
        self._settings = settings
        self._attempts: dict[str, Attempt] = {}
        self._talk = Signal()
        self._idle = trio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt) -> None:
        """Hold the lease of an attempt from now on."""
        if not self._attempts:
            self._idle = trio.Event()
        self._attempts[attempt.lease.job_id] = attempt

    def drop(self, attempt: Attempt) -> None:
        """The attempt is settled, or its lease is gone."""
        if self._attempts.get(attempt.lease.job_id) is attempt:
            del self._attempts[attempt.lease.job_id]
            if not self._attempts:
                self._idle.set()

    def cancel(self, job_id: str) -> None:
        """The user cancelled the job: stop its attempt if it runs here."""
        attempt = self._attempts.get(job_id)
        if attempt is not None:
            log.info("job.cancelled", job=job_id, slot=attempt.worker_id)
            attempt.end("cancelled")

    def lose(self, job_ids: list[str]) -> None:
        """Jobs whose lease was gone before they were started."""
        for job_id in job_ids:
            if job_id in self._attempts:
                self._attempts[job_id].end("lease_lost")

    def end_all(self, why: str) -> None:
        """Hand back what still runs: ``drain`` after a signal, ``shutdown`` when the machine itself ends."""
        for attempt in list(self._attempts.values()):
            attempt.end("drain" if why == "drain" else "shutdown")

    async def wait_idle(self) -> None:
        """Wait until no attempt is left."""
        while self._attempts:
            await self._idle.wait()

    def has_progress(self) -> None:
        """An attempt has something to say."""
        self._talk.set()

    async def renew(self) -> None:
        """Renew all leases every ``renew_every`` seconds; ends only by cancellation.

        A lease that could not be renewed in time stops its attempt by the attempt's own deadline; one that was refused
        stops it at once.
        """
        pause = self._settings.renew_every
        while True:
            await trio.sleep(pause)
            pause = self._settings.renew_every
            if not await self.renew_once():
                pause = min(pause, 0.25)

    async def renew_once(self) -> bool:
        """Renew all leases now. Returns whether Redis answered."""
        attempts = list(self._attempts.values())
        if not attempts:
            return True
        sent = trio.current_time()
        try:
            gone = await self._verbs.renew([a.lease for a in attempts], lease=self._settings.lease)
        except EmpTrioError as error:
            log.warning("leases.not_renewed", jobs=len(attempts), error=error.message)
            return False
        for attempt in attempts:
            why = gone.get(attempt.lease.job_id)
            if why is None:
                attempt.renewed(sent + self._settings.lease)
            elif self._attempts.get(attempt.lease.job_id) is attempt:
                log.warning("lease.gone", job=attempt.lease.job_id, slot=attempt.worker_id, why=why)
                attempt.end("cancelled" if why == "cancelled" else "lease_lost")
        return True

    async def publish_progress(self) -> None:
        """Publish what attempts report, at most once per ``progress_every`` for each; ends only by cancellation."""
        while True:
            await self._talk.wait()
            reports = [r for a in self._attempts.values() if (r := a.take_progress()) is not None]
            if reports:
                try:
                    for job_id in await self._verbs.progress(reports):
                        if job_id in self._attempts:
                            await self.renew_once()  # finds out whether it was cancelled or lost
                            break
                except EmpTrioError as error:  # progress may be lost; the outcome may not
                    log.debug("progress.lost", reports=len(reports), error=error.message)
            await trio.sleep(self._settings.progress_every)
