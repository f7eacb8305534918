"""Execute claimed jobs: read, route, admit, run, classify, then settle."""

from __future__ import annotations

import random
import time

import structlog
import trio

from emp_trio.errors import EmpTrioError, InvalidJob, NotStarted, Stage
from emp_trio.jobs import Job, not_an_object
from emp_trio.mapping import ServicePlan
from emp_trio.offload import off_loop, weight
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.settlement import Identity, Settlement, released
from emp_trio.secrets import Secret
from emp_trio.secrets import held as masked
from emp_trio.secrets.credentials import named_secrets
from emp_trio.worker import outcome
from emp_trio.worker.attempt import Attempt, AttemptTimes
from emp_trio.worker.availability import Availability
from emp_trio.worker.claimer import ClaimedJob
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.context import MachineContext
from emp_trio.worker.leases import Leases
from emp_trio.worker.observer import JobStarted, StageEnded
from emp_trio.worker.outcome import AttemptEnd, Outcome, classify
from emp_trio.worker.registration import Registration
from emp_trio.worker.settler import Settler
from emp_trio.worker.standstill import CONNECTOR, JOB

log = structlog.get_logger("emp_trio.slot")


class Executor:
    """Runs claimed jobs, each in its own task.

    Args:
        availability: routes jobs to services.
        leases: leases of the attempts.
        registration: publishes busy slots.
        settler: stores outcomes.
    """

    def __init__(
        self,
        context: MachineContext,
        availability: Availability,
        leases: Leases,
        registration: Registration,
        settler: Settler,
    ) -> None:
        self._settings = context.settings
        self._queue = context.queue
        self._redactor = context.redactor
        self._observers = context.observers
        self._availability = availability
        self._leases = leases
        self._registration = registration
        self._settler = settler

    async def run(self, claimed: ClaimedJob) -> None:
        """Run a claimed job and settle it. Cancellation requeues the job."""
        structlog.contextvars.bind_contextvars(
            job=claimed.lease.job_id, slot=claimed.slot.worker_id, attempt=claimed.attempt
        )
        claimed.slot.current_job_id = claimed.lease.job_id
        self._registration.moved()
        settlement: Settlement | None = released()
        try:
            if not self._settler.closing:
                try:
                    settlement = await self._execute(claimed)
                except Exception as error:  # an invalid job hash fails only that job
                    log.error("job.broken", error=str(error), exc_info=error)
                    settlement = self._unreadable(claimed, error)
                if claimed.start is not None and settlement is not None:  # publish the start before the end
                    await claimed.start.published.wait()
        finally:
            await self._settler.settle(claimed, settlement)

    async def _execute(self, claimed: ClaimedJob) -> Settlement | None:
        """Run an attempt. Return its settlement, or None if there is nothing to settle."""
        try:
            job = await self._read(claimed)
        except NotStarted:
            return released()
        except InvalidJob as error:
            return self._unreadable(claimed, error)
        try:
            supervisor = self._route(job, claimed)
            admission = supervisor.admit()
        except EmpTrioError as error:
            who = self._identity(claimed)
            return outcome.failed(job, error, who, redactor=self._redactor, now=time.time(), random=0.0)
        with admission:
            attempt = self._begin(job, claimed, supervisor)
            with masked(*_credentials(job)):
                end = await attempt.run(admission.connector)
                size = weight(end.returned)
                found = await off_loop(size, self._classify, attempt, end, claimed, size)
                if found.settlement is None or found.error is not None:
                    self._report(attempt, end, found, supervisor)
            admission.verdict = found.verdict
            if found.settlement is not None and found.settlement.failure is not None:
                admission.trouble = found.settlement.failure.message
        return found.settlement

    async def _read(self, claimed: ClaimedJob) -> Job:
        """Return the job, and fetch the fields that were too long for the reply to the claim.

        Raises:
            InvalidJob: a field is invalid.
            NotStarted: the long fields could not be fetched before the lease expires.
        """
        claim = claimed.claim
        if claim.left_out:
            with trio.move_on_at(claimed.expires - self._settings.lease_margin) as reading:
                claim = await self._queue.retry_until_accepted(lambda: self._queue.whole(claim))
            if reading.cancelled_caught:
                raise NotStarted("the job's long fields could not be read in time")
        size = sum(map(len, claim.fields.values()))
        return await off_loop(size, read_job, claim.job_id, claimed.attempt, claim.fields)

    def _route(self, job: Job, claimed: ClaimedJob) -> Supervisor:
        """Return the supervisor for a job. Raise an EmpTrioError if the job can't run, or its deadline has passed."""
        lane = claimed.slot.lane
        supervisor = self._availability.supervisor(lane, job.type)
        if supervisor is None:
            text = f"the worker type {lane!r} has no connector for the job type {job.type!r}"
            raise InvalidJob(text, reason="unsupported_operation")
        if job.deadline is not None and time.time() >= job.deadline:
            text = "the job's deadline passed before it could begin"
            raise EmpTrioError(text, type="timeout", reason="queue_timeout")
        if job.bare_payload is not None and not supervisor.plan.connector.takes_any_payload:
            raise InvalidJob(not_an_object("payload", job.bare_payload), reason="invalid_format")
        return supervisor

    def _begin(self, job: Job, claimed: ClaimedJob, supervisor: Supervisor) -> Attempt:
        """Create the attempt of an admitted job, and hold its lease."""
        service = supervisor.plan
        claimed.slot.current_service = service.worker_service
        CONNECTOR.set(service.connector_name)
        JOB.set(job.id)
        features = service.connector.features(service.settings)
        if not features.job_status and claimed.claim.fields.get("crashes", b"0") not in (b"", b"0"):
            log.warning("job.begun_anew", service=service.worker_service, why=features.lacks()["job_status"])
        minutes = service.entry.job_timeout_minutes
        seconds = self._settings.job_timeout if minutes is None else minutes * 60
        if job.deadline is not None:
            seconds = min(seconds, job.deadline - time.time())
        times = AttemptTimes(
            expires=claimed.expires,
            margin=self._settings.lease_margin,
            deadline=trio.current_time() + seconds,
            limits=self._settings.stages,
            cleanup=self._settings.cleanup,
        )
        attempt = Attempt(job, claimed.lease, claimed.slot.worker_id, times, self._leases, self._redactor)
        if claimed.start is not None:
            claimed.start.mute(attempt)
        self._leases.add(attempt)
        self._observe(attempt, service)
        return attempt

    def _observe(self, attempt: Attempt, service: ServicePlan) -> None:
        job, slot = attempt.job, attempt.worker_id
        if tell := self._observers.job_started:
            tell(
                JobStarted(
                    job_id=job.id,
                    slot=slot,
                    attempt=job.attempt,
                    job_type=job.type,
                    service=service.worker_service,
                    connector=service.connector_name,
                )
            )
        if tell_stage := self._observers.stage_ended:

            def ended(stage: Stage, seconds: float) -> None:
                tell_stage(StageEnded(job_id=job.id, slot=slot, attempt=job.attempt, stage=stage, seconds=seconds))

            attempt.stages.on_end = ended

    def _classify(self, attempt: Attempt, end: AttemptEnd, claimed: ClaimedJob, size: int) -> Outcome:
        return classify(
            attempt.job,
            end,
            self._identity(claimed),
            redactor=self._redactor,
            now=time.time(),
            random=random.random(),
            size=size,
        )

    def _report(self, attempt: Attempt, end: AttemptEnd, found: Outcome, supervisor: Supervisor) -> None:
        """Log what the settlement does not contain, and publish the last progress of a failed attempt."""
        error, settlement, service = found.error, found.settlement, supervisor.plan
        if end.stopped:
            if error is not None:
                log.warning("connector.error", error=type(error).__name__, while_ending=end.ending, exc_info=error)
            if settlement is None:
                log.info("job.stopped", why=end.ending)
                features = service.connector.features(service.settings)
                if end.ending == "cancelled" and not features.cancellation:
                    why = features.lacks()["cancellation"]
                    log.warning("job.not_stopped_upstream", service=service.worker_service, why=why)
        elif error is not None and settlement is not None:
            if found.verdict == "unready":
                log.warning("job.not_started", why=outcome.described(error, self._redactor).message)
            if settlement.failure is not None:
                if not isinstance(error, EmpTrioError):
                    log.warning("connector.error", error=settlement.failure.message, exc_info=error)
                self._leases.publish_last_progress(attempt)

    def _unreadable(self, claimed: ClaimedJob, error: Exception) -> Settlement:
        return outcome.unreadable(
            claimed.lease.job_id,
            claimed.attempt,
            claimed.claim.fields,
            error,
            self._identity(claimed),
            redactor=self._redactor,
            now=time.time(),
        )

    def _identity(self, claimed: ClaimedJob) -> Identity:
        return Identity(worker_id=claimed.slot.worker_id, machine_id=self._settings.machine_id)


def _credentials(job: Job) -> tuple[Secret, ...]:
    """Return the job's own credentials: storage key, and secrets in the payload under any name."""
    own = named_secrets(job.payload)
    return own if job.ctx.account_key is None else (job.ctx.account_key, *own)
