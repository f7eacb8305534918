"""Settle claimed jobs: store the outcome, release the lease, free the slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.settlement import Settlement
from emp_trio.worker.claimer import ClaimedJob
from emp_trio.worker.context import MachineContext
from emp_trio.worker.leases import Leases
from emp_trio.worker.observer import JobRequeued, JobSettled
from emp_trio.worker.registration import Registration
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.slot")

_NOT_SETTLED: Final = "its lease runs out and it is tried again"


class Settler:
    """Stores outcomes and frees slots.

    The outcome of a completed job is sent without waiting, and its reply frees the slot. If that fails, and for all
    other outcomes, the call is retried until Redis accepts it or its time is up.

    Args:
        leases: releases the lease of an ended job.
        registration: publishes slots that became free without a settlement.
        requeued: called after a job was requeued.
    """

    def __init__(
        self, context: MachineContext, leases: Leases, registration: Registration, requeued: Callable[[], None]
    ) -> None:
        self._settings = context.settings
        self._queue = context.queue
        self._observers = context.observers
        self._leases = leases
        self._registration = registration
        self._requeued = requeued
        self._waiting: set[trio.CancelScope] = set()
        self._refused: list[tuple[ClaimedJob, Settlement]] = []
        self._some_refused = Wakeup()
        self.closing = False
        """Whether newly claimed jobs are requeued at once."""

    def close(self) -> None:
        """Requeue newly claimed jobs at once."""
        self.closing = True

    def limit_settle_time(self) -> None:
        """Limit the time to store outcomes to the settle stage, because the machine is about to end."""
        self.close()
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, trio.current_time() + self._settings.stages.settle)

    async def settle(self, job: ClaimedJob, settlement: Settlement | None) -> None:
        """Store the outcome of a job and free its slot, also during cancellation. The wait for Redis is limited.

        Args:
            settlement: None if there is nothing to store: the lease is lost or the job was cancelled.
        """
        if settlement is not None and settlement.kind == "completed" and not self.closing:
            self._settle_without_waiting(job, settlement)
        else:
            await self._settle_patiently(job, settlement)

    async def run(self) -> None:
        """Store the outcomes that failed at first. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._some_refused.wait()
                while self._refused:
                    nursery.start_soon(self._settle_patiently, *self._refused.pop())

    def _settle_without_waiting(self, job: ClaimedJob, settlement: Settlement) -> None:
        def replied(stored: bool) -> None:
            if stored:
                self._settled(job, settlement, stored=True)
                self._free(job, settlement)
            else:
                self._refused.append((job, settlement))
                self._some_refused.set()

        self._queue.settle_soon(
            job.lease,
            self._settings.machine_id,
            settlement,
            replied,
            unified=self._settings.unified,
            failed_before=job.claim.failed_before,
        )

    async def _settle_patiently(self, job: ClaimedJob, settlement: Settlement | None) -> None:
        structlog.contextvars.bind_contextvars(job=job.lease.job_id, slot=job.slot.worker_id, attempt=job.attempt)
        stored = settlement is not None and await self._store(job, settlement)
        if not stored:
            unpublished = job.start is not None and job.start.drop()
            await self._registration.freed(job.slot, unpublished=unpublished)
        self._free(job, settlement if stored else None)

    async def _store(self, job: ClaimedJob, settlement: Settlement) -> bool:
        """Store an outcome, also during cancellation, and retry while Redis is unreachable.

        Returns:
            whether it was stored.
        """
        patient = settlement.kind != "release" and not self.closing
        limit = self._settings.stages.settle + (self._settings.settle_patience if patient else 0.0)
        stored = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope:
            self._waiting.add(scope)
            try:
                stored = await self._queue.retry_until_accepted(
                    lambda: self._queue.settle(
                        job.lease, self._settings.machine_id, settlement, unified=self._settings.unified
                    )
                )
                self._settled(job, settlement, stored=stored)
            except EmpTrioError as error:
                log.error("job.not_settled", error=error.message, kind=settlement.kind, hint=_NOT_SETTLED)
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            log.error("job.not_settled", error="Redis is away", kind=settlement.kind, hint=_NOT_SETTLED)
        if settlement.kind in ("retry", "release"):
            self._requeued()
        return stored

    def _free(self, job: ClaimedJob, stored: Settlement | None) -> None:
        slot = job.slot
        if stored is not None:
            slot.completed += stored.kind == "completed"
            slot.failed += stored.kind == "failed"
        self._leases.drop(job.lease)
        slot.current_job_id = slot.current_service = None
        self._registration.moved()
        job.claimer.put_back(slot)

    def _settled(self, job: ClaimedJob, settlement: Settlement, *, stored: bool) -> None:
        if tell := self._observers.job_settled:
            tell(
                JobSettled(
                    job_id=job.lease.job_id,
                    slot=job.slot.worker_id,
                    attempt=job.attempt,
                    kind=settlement.kind,
                    stored=stored,
                    failure=settlement.failure,
                    delay=settlement.delay,
                    seconds=trio.current_time() - job.at,
                    size=len(settlement.stored),
                )
            )
        if stored and settlement.kind in ("retry", "release") and (tell_requeued := self._observers.job_requeued):
            tell_requeued(JobRequeued(job_id=job.lease.job_id, cause=settlement.kind, delay=settlement.delay))
