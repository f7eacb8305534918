"""The machine's slots: each takes a claimed job, runs it in a task of its own, and settles what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import structlog
import trio

from emp_trio.errors import EmpTrioError, InvalidJob
from emp_trio.jobs import Job, not_an_object
from emp_trio.mapping import WorkerPlan
from emp_trio.offload import off_loop
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.settlement import Identity, Settlement, released
from emp_trio.queue.worker_queue import Claim, LeaseRef, WorkerQueue
from emp_trio.secrets import Redactor, Secret
from emp_trio.secrets import held as masked
from emp_trio.secrets.credentials import named_secrets
from emp_trio.worker import outcome
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.claimer import Claimer
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.first_words import FirstWords, Held
from emp_trio.worker.fleet_events import SlotState
from emp_trio.worker.leases import Leases
from emp_trio.worker.registration import Registration
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.slot import run_attempt
from emp_trio.worker.standstill import CONNECTOR, JOB
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.slot")


class Slots:
    """Where jobs run.

    Args:
        states: every slot by worker id.
        workers: the worker types, for their routes.
        supervisors: connectors by worker service.
        first_words: knows the jobs of which nothing may be published yet.
        registration: told of slots that became free without a settlement.
        requeued: called when a job went back to the queue.
        redactor: the machine's. What a job brings of credentials is held for as long as it runs.
    """

    def __init__(
        self,
        states: Mapping[str, SlotState],
        workers: Sequence[WorkerPlan],
        supervisors: Mapping[str, Supervisor],
        worker_queue: WorkerQueue,
        leases: Leases,
        first_words: FirstWords,
        registration: Registration,
        settings: WorkerSettings,
        redactor: Redactor,
        requeued: Callable[[], None],
    ) -> None:
        self._states = states
        self._routes = {worker.key: worker.routes for worker in workers}
        self._supervisors = supervisors
        self._queue = worker_queue
        self._leases = leases
        self._first_words = first_words
        self._registration = registration
        self._settings = settings
        self._redactor = redactor
        self._log = log.bind()  # which takes longer than writing nothing does
        self._requeued = requeued
        self._settling: set[trio.CancelScope] = set()
        self._late: list[tuple[Claimer, Claim, Settlement]] = []
        self._late_ones = Wakeup()
        self._closing = False

    def close(self) -> None:
        """Hand back at once what is claimed from now on."""
        self._closing = True

    def limit_settle_time(self) -> None:
        """The machine is about to end: outcomes get no more than their own stage's time to be stored."""
        self.close()
        for scope in self._settling:
            scope.deadline = min(scope.deadline, trio.current_time() + self._settings.stages.settle)

    async def run(self, claimer: Claimer, claim: Claim, expires: float) -> None:
        """Run a claimed job and settle it; the slot is free again at the end.

        Args:
            expires: Trio time at which the lease ends unless it is renewed.

        A cancelled job is handed back.
        """
        structlog.contextvars.bind_contextvars(job=claim.job_id, slot=claim.worker_id, attempt=claim.attempt)
        self._states[claim.worker_id].current_job_id = claim.job_id
        self._registration.moved()
        settlement: Settlement | None = released()
        try:
            if not self._closing:
                held = self._first_words.held(claim)
                try:
                    settlement = await self._attempted(claimer, claim, expires, held)
                except Exception as error:  # whatever stands in a job's hash, it is that job's failure
                    log.error("job.broken", error=str(error), exc_info=error)
                    settlement = self._unreadable(claim, error)
                if held is not None and settlement is not None:  # its end must not be told before its beginning
                    await held.said.wait()
        finally:
            if settlement is not None and settlement.kind == "completed" and not self._closing:
                self._settle_soon(claimer, claim, settlement)
            else:
                await self._finish(claimer, claim, settlement)

    async def finish_late(self) -> None:
        """Finish the jobs whose outcome Redis did not take at once; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._late_ones.wait()
                while self._late:
                    nursery.start_soon(self._finish, *self._late.pop())

    def _settle_soon(self, claimer: Claimer, claim: Claim, settlement: Settlement) -> None:
        """The way of nearly every job: its outcome is sent, its task ends, and the reply frees the slot."""

        def replied(stored: bool) -> None:
            if stored:
                self._log.debug("job.completed", job=claim.job_id, slot=claim.worker_id, attempt=claim.attempt)
                self._free(claimer, claim, settlement)
            else:
                self._late.append((claimer, claim, settlement))
                self._late_ones.set()

        lease, machine = LeaseRef(claim.job_id, claim.token), self._settings.machine_id
        self._queue.settle_soon(
            lease,
            machine,
            settlement,
            replied,
            unified=self._settings.unified,
            failed_before=claim.failed_before,
        )

    async def _finish(self, claimer: Claimer, claim: Claim, settlement: Settlement | None) -> None:
        """Settle whatever there is to settle, and free the slot."""
        structlog.contextvars.bind_contextvars(job=claim.job_id, slot=claim.worker_id, attempt=claim.attempt)
        stored = settlement is not None and await self._settle(LeaseRef(claim.job_id, claim.token), settlement)
        if not stored:
            held = self._first_words.held(claim)
            untold = held is not None and self._first_words.forget(held)
            await self._registration.freed(self._states[claim.worker_id], untold=untold)
        self._free(claimer, claim, settlement if stored else None)

    def _free(self, claimer: Claimer, claim: Claim, stored: Settlement | None) -> None:
        slot = self._states[claim.worker_id]
        if stored is not None:
            slot.completed += stored.kind == "completed"
            slot.failed += stored.kind == "failed"
        self._leases.drop(LeaseRef(claim.job_id, claim.token))
        slot.current_job_id = slot.current_service = None
        self._registration.moved()
        claimer.put_back(claim.worker_id)

    async def _attempted(self, claimer: Claimer, claim: Claim, expires: float, held: Held | None) -> Settlement | None:
        """What comes of one attempt; None where there is nothing to settle."""
        if claim.left_out:
            with trio.move_on_at(expires - self._settings.lease_margin) as reading:
                claim = await self._queue.retry_until_accepted(lambda: self._queue.whole(claim))
            if reading.cancelled_caught:
                return released()
        who = Identity(worker_id=claim.worker_id, machine_id=self._settings.machine_id)
        try:
            size = sum(map(len, claim.fields.values()))
            job = await off_loop(size, read_job, claim.job_id, claim.attempt, claim.fields)
        except InvalidJob as error:
            return self._unreadable(claim, error)
        service = self._routes[claimer.name].get(job.type)
        if service is None or (job.deadline is not None and time.time() >= job.deadline):
            why = _unserved(job, claimer.name) if service is None else _too_late()
            return outcome.failed(job, why, who, redactor=self._redactor, now=time.time(), random=0.0)
        if job.bare_payload is not None and not service.connector.takes_any_payload:
            wrong = InvalidJob(not_an_object("payload", job.bare_payload), reason="invalid_format")
            return outcome.failed(job, wrong, who, redactor=self._redactor, now=time.time(), random=0.0)
        supervisor = self._supervisors[service.key]
        connector = supervisor.connector
        began = None if connector is None else supervisor.begin()
        if connector is None or began is None:  # it closed, or opened its circuit, while the claim was made
            return released(delay=self._settings.health_retry)
        self._states[claim.worker_id].current_service = service.worker_service
        CONNECTOR.set(service.connector_name)
        JOB.set(claim.job_id)
        offers = service.connector.features(service.settings)
        if not offers.job_status and claim.fields.get("crashes", b"0") not in (b"", b"0"):
            log.warning("job.begun_anew", service=service.worker_service, why=offers.lacks()["job_status"])
        minutes = service.entry.job_timeout_minutes
        seconds = self._settings.job_timeout if minutes is None else minutes * 60
        attempt = self._attempt(job, LeaseRef(claim.job_id, claim.token), claim.worker_id, expires, seconds)
        if held is not None and not held.said.is_set():
            held.attempt, attempt.silent = attempt, True
        self._leases.add(attempt)
        settlement: Settlement | None = None
        try:
            with masked(*_credentials(job)):
                settlement = await run_attempt(attempt, connector, who, self._redactor)
        finally:
            failure = settlement.failure if settlement is not None else None
            supervisor.end(began, attempt.verdict, failure.message if failure is not None else "")
        if settlement is not None and settlement.kind in ("failed", "retry"):
            self._leases.say_last(attempt)
        if settlement is None:
            log.info("job.stopped", why=attempt.ending)
            if attempt.ending == "cancelled" and not offers.cancellation:
                log.warning(
                    "job.not_stopped_upstream", service=service.worker_service, why=offers.lacks()["cancellation"]
                )
        return settlement

    def _unreadable(self, claim: Claim, error: Exception) -> Settlement:
        who = Identity(worker_id=claim.worker_id, machine_id=self._settings.machine_id)
        return outcome.unreadable(
            claim.job_id, claim.attempt, claim.fields, error, who, redactor=self._redactor, now=time.time()
        )

    def _attempt(self, job: Job, lease: LeaseRef, worker_id: str, expires: float, seconds: float) -> Attempt:
        if job.deadline is not None:
            seconds = min(seconds, job.deadline - time.time())
        return Attempt(
            job,
            lease,
            worker_id,
            expires=expires,
            margin=self._settings.lease_margin,
            deadline=trio.current_time() + seconds,
            limits=self._settings.stages,
            cleanup=self._settings.cleanup,
            changed=self._leases.has_progress,
            store=lambda ref, checkpoint: self._queue.retry_until_accepted(
                lambda: self._queue.save_checkpoint(ref, checkpoint)
            ),
            redactor=self._redactor,
        )

    async def _settle(self, lease: LeaseRef, settlement: Settlement) -> bool:
        """Store an outcome, also while the machine is being cancelled; Redis may be away for a while.

        Returns:
            whether it is stored.
        """
        patient = settlement.kind != "release" and not self._closing
        limit = self._settings.stages.settle + (self._settings.settle_patience if patient else 0.0)
        held = False
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope:
            self._settling.add(scope)
            try:
                held = await self._queue.retry_until_accepted(
                    lambda: self._queue.settle(
                        lease, self._settings.machine_id, settlement, unified=self._settings.unified
                    )
                )
                _log_outcome(settlement, held)
            except EmpTrioError as error:
                log.error("job.not_settled", error=error.message, kind=settlement.kind, hint=_NOT_SETTLED)
            finally:
                self._settling.discard(scope)
        if scope.cancelled_caught:
            log.error("job.not_settled", error="Redis is away", kind=settlement.kind, hint=_NOT_SETTLED)
        if settlement.kind in ("retry", "release"):
            self._requeued()
        return held


_NOT_SETTLED = "its lease runs out and it is tried again"


def _credentials(job: Job) -> tuple[Secret, ...]:
    """What a job brings of its own: keys for its storage and for its service, whatever the payload calls them."""
    own = named_secrets(job.payload)
    return own if job.ctx.account_key is None else (job.ctx.account_key, *own)


def _unserved(job: Job, worker_type: str) -> EmpTrioError:
    text = f"the worker type {worker_type!r} has no connector for the job type {job.type!r}"
    return InvalidJob(text, reason="unsupported_operation")


def _too_late() -> EmpTrioError:
    return EmpTrioError("the job's deadline passed before it could begin", type="timeout", reason="queue_timeout")


def _log_outcome(settlement: Settlement, held: bool) -> None:
    failure = settlement.failure
    if not held:
        log.warning("job.lost", kind=settlement.kind, why="the lease was gone when the attempt ended")
    elif failure is None:
        log.debug("job.completed") if settlement.kind == "completed" else log.info("job.released")
    else:
        event = "job.failed" if settlement.kind == "failed" else "job.retry"
        log.warning(event, type=failure.type, reason=failure.reason, error=failure.message, delay=settlement.delay)
