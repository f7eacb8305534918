"""Leases of the machine's running attempts: renewal, loss, progress and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.context import MachineContext
from emp_trio.worker.observer import JobProgressed, LeaseLossCause, LeaseLost
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.leases")

_LOOK: Final = 1.0  # seconds between checks for connectors that do not stop


class Leases:
    """Running attempts by job id, and the tasks that publish progress and stop attempts whose lease was not renewed.

    Args:
        table: leases that the keeper renews.
    """

    def __init__(self, table: LeaseTable, context: MachineContext) -> None:
        self._table = table
        self._queue = context.queue
        self._settings = context.settings
        self._observers = context.observers
        self._attempts: dict[str, Attempt] = {}
        self._progress = Wakeup()
        self._sooner = Wakeup()
        self._next_end = math.inf
        self._idle = trio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt) -> None:
        """Hold the lease of an attempt."""
        if not self._attempts:
            self._idle = trio.Event()
        before = self._attempts.get(attempt.lease.job_id)
        if before is not None:  # the job was cancelled, requeued and claimed again before we learned of it
            before.end("lease_lost")
            self._table.drop(before.lease)
        self._attempts[attempt.lease.job_id] = attempt
        attempt.renewed(self._table.hold(attempt.lease, attempt.stop_at + self._settings.lease_margin))
        if attempt.stop_at < self._next_end:
            self._sooner.set()

    def drop(self, lease: LeaseRef) -> None:
        """Stop holding a lease: its attempt is settled, or the lease is lost."""
        self._table.drop(lease)
        found = self._attempts.get(lease.job_id)
        if found is not None and found.lease == lease:
            del self._attempts[lease.job_id]
            if not self._attempts:
                self._idle.set()

    def cancel(self, job_id: str) -> None:
        """Stop the attempt of a job that the user cancelled, if it runs here."""
        attempt = self._attempts.get(job_id)
        if attempt is not None:
            self._lost(attempt, "cancel_heard")
            attempt.end("cancelled")

    def renew_now(self) -> None:
        """Renew all leases now, to find out which are lost."""
        self._table.ask()

    def end_all(self) -> None:
        """Stop and requeue all running attempts."""
        for attempt in list(self._attempts.values()):
            attempt.end("drain")

    async def wait_idle(self) -> None:
        """Wait until no attempt is running."""
        while self._attempts:
            await self._idle.wait()

    def has_progress(self) -> None:
        """Wake the publisher of progress."""
        self._progress.set()

    async def save_checkpoint(self, lease: LeaseRef, checkpoint: bytes) -> None:
        """Store a checkpoint with the lease. Wait while Redis is unreachable. Raise LeaseLost if the lease is gone."""
        await self._queue.retry_until_accepted(lambda: self._queue.save_checkpoint(lease, checkpoint))

    def publish_last_progress(self, attempt: Attempt) -> None:
        """Publish the last progress of a failed attempt, without waiting for Redis."""
        report = attempt.take_progress()
        if report is not None:
            self._queue.progress_soon([report])

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        """Stop the attempts of leases that are ``lost`` or whose jobs were ``cancelled``."""
        for lease, why in leases.items():
            attempt = self._attempts.get(lease.job_id)
            if attempt is not None and attempt.lease == lease and attempt.ending is None:
                self._lost(attempt, "cancelled" if why == "cancelled" else "lost")
                attempt.end("cancelled" if why == "cancelled" else "lease_lost")

    def _lost(self, attempt: Attempt, cause: LeaseLossCause) -> None:
        if tell := self._observers.lease_lost:
            tell(LeaseLost(job_id=attempt.lease.job_id, slot=attempt.worker_id, cause=cause))

    async def watch(self) -> None:
        """Abandon the leases of connectors that keep running after their cancellation. Runs until cancelled."""
        while True:
            for attempt in [a for a in self._attempts.values() if a.stuck]:
                self._lost(attempt, "stuck")
                attempt.end("lease_lost")
                self.drop(attempt.lease)
            await trio.sleep(min(_LOOK, self._settings.renew_every))

    async def expire(self) -> None:
        """Stop each attempt before its lease expires, unless renewed in time. Runs until cancelled."""
        while True:
            now = trio.current_time()
            running = [attempt for attempt in self._attempts.values() if attempt.ending is None]
            for attempt in running:
                attempt.renewed(self._table.until(attempt.lease))  # the keeper may have renewed it meanwhile
                if attempt.stop_at <= now:
                    self._lost(attempt, "expired")
                    attempt.end("lease_lost")
            self._next_end = min((a.stop_at for a in running if a.ending is None), default=math.inf)
            await self._sooner.wait(self._next_end - now)

    async def publish_progress(self) -> None:
        """Publish progress, at most once per ``progress_every`` seconds and attempt. Runs until cancelled."""
        while True:
            await self._progress.wait()
            reports = [(a, report) for a in self._attempts.values() if (report := a.take_progress()) is not None]
            if reports:
                try:
                    gone = await self._queue.progress([report for _, report in reports])
                except EmpTrioError as error:
                    log.debug("progress.not_published", jobs=len(reports), error=error.message)
                    for attempt, _ in reports:
                        attempt.not_published()
                    self._progress.set()
                else:
                    if tell := self._observers.job_progressed:
                        for attempt, report in reports:
                            tell(
                                JobProgressed(
                                    job_id=attempt.lease.job_id,
                                    slot=attempt.worker_id,
                                    attempt=attempt.job.attempt,
                                    value=report[1],
                                )
                            )
                    if any(job_id in self._attempts for job_id in gone):
                        self.renew_now()
            await trio.sleep(self._settings.progress_every)
