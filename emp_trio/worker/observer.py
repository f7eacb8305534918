"""Events of jobs and services, and the interface of their observers.

Logging, metrics and traces are observers. Events without an observer are not created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import msgspec
import structlog

from emp_trio.errors import Stage
from emp_trio.failures import Failure
from emp_trio.queue.settlement import Kind

log = structlog.get_logger("emp_trio.observer")

LeaseLossCause = Literal["cancel_heard", "cancelled", "lost", "expired", "stuck"]


class JobClaimed(msgspec.Struct, frozen=True, kw_only=True):
    """A slot claimed a job. ``size`` is the number of bytes of its hash in the reply to the claim."""

    job_id: str
    slot: str
    attempt: int
    size: int


class JobStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The connector is about to start the job."""

    job_id: str
    slot: str
    attempt: int
    job_type: str
    service: str
    connector: str


class JobProgressed(msgspec.Struct, frozen=True, kw_only=True):
    """Progress was published; ``value`` is a percentage."""

    job_id: str
    slot: str
    attempt: int
    value: float


class StageEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A stage ended, with or without an error. ``seconds`` of the service stage exclude nested stages."""

    job_id: str
    slot: str
    attempt: int
    stage: Stage
    seconds: float


class JobSettled(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt was sent to Redis, or a job failed permanently because its leases expired.

    Attributes:
        slot: worker id; None if this machine did not hold the job.
        attempt: number of the attempt; None if unknown.
        kind: ``completed``, ``failed`` (permanently), ``retry`` or ``release`` (requeued without counting an attempt).
        stored: False if the lease was lost: nothing was changed, another worker has the job.
        failure: type, reason and message, for ``failed`` and ``retry``.
        delay: seconds until the next attempt.
        seconds: seconds since the claim; 0.0 if this machine did not hold the job.
        size: bytes of the outcome.
    """

    job_id: str
    slot: str | None
    attempt: int | None
    kind: Kind
    stored: bool = True
    failure: Failure | None = None
    delay: float = 0.0
    seconds: float = 0.0
    size: int = 0


class JobRequeued(msgspec.Struct, frozen=True, kw_only=True):
    """A job of any machine was requeued.

    Attributes:
        cause: its attempt failed (``retry``) or was released (``release``), its lease expired (``lease_expired``), or a
            worker without leases is gone (``worker_gone``).
        worker: the worker that is gone, or "".
        delay: seconds until it may be claimed.
    """

    job_id: str
    cause: Literal["retry", "release", "lease_expired", "worker_gone"]
    worker: str = ""
    delay: float = 0.0


class LeaseLost(msgspec.Struct, frozen=True, kw_only=True):
    """A running attempt is being stopped, because its lease is lost or abandoned.

    Attributes:
        cause: the job was cancelled, known by a message (``cancel_heard``) or from the renewal (``cancelled``);
            another worker has the job (``lost``); the lease was not renewed in time (``expired``); the connector keeps
            running after its cancellation (``stuck``).
    """

    job_id: str
    slot: str
    cause: LeaseLossCause


class ConnectorHealthChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A service became usable or unusable.

    Attributes:
        service, connector: names of the worker service and of its connector.
        state: result of its health check, or of its jobs (``circuit_open``, ``circuit_closed``).
        detail: reason.
        seconds: seconds until an open circuit admits a probe job.
    """

    service: str
    connector: str
    state: Literal["healthy", "unhealthy", "circuit_open", "circuit_closed"]
    detail: str = ""
    seconds: float = 0.0


class JobObserver:
    """Base class of observers. Override the methods for the events of interest.

    Methods are called in the event loop and must not block. Their errors are logged and otherwise ignored.
    """

    def job_claimed(self, event: JobClaimed) -> None:
        """Handle a claimed job."""

    def job_started(self, event: JobStarted) -> None:
        """Handle the start of a job."""

    def job_progressed(self, event: JobProgressed) -> None:
        """Handle published progress."""

    def stage_ended(self, event: StageEnded) -> None:
        """Handle the end of a stage."""

    def job_settled(self, event: JobSettled) -> None:
        """Handle the outcome of an attempt."""

    def job_requeued(self, event: JobRequeued) -> None:
        """Handle a requeued job."""

    def lease_lost(self, event: LeaseLost) -> None:
        """Handle the loss of a lease."""

    def connector_health_changed(self, event: ConnectorHealthChanged) -> None:
        """Handle a change of a service's health."""


E = TypeVar("E")


class Observers:
    """All observers of a machine. Each attribute calls the observers of an event, and is None without any:
    ``if notify := observers.job_claimed: notify(JobClaimed(...))``."""

    def __init__(self, observers: Iterable[JobObserver] = ()) -> None:
        found = tuple(observers)
        self.job_claimed = _all_of(found, JobObserver.job_claimed)
        self.job_started = _all_of(found, JobObserver.job_started)
        self.job_progressed = _all_of(found, JobObserver.job_progressed)
        self.stage_ended = _all_of(found, JobObserver.stage_ended)
        self.job_settled = _all_of(found, JobObserver.job_settled)
        self.job_requeued = _all_of(found, JobObserver.job_requeued)
        self.lease_lost = _all_of(found, JobObserver.lease_lost)
        self.connector_health_changed = _all_of(found, JobObserver.connector_health_changed)

    def put_back(
        self,
        cause: Literal["lease_expired", "worker_gone"],
        requeued: Iterable[str],
        failed: Iterable[tuple[str, str]],
        *,
        worker: str = "",
    ) -> None:
        """Report abandoned jobs that were requeued, and those (id, reason) that failed permanently."""
        if tell := self.job_requeued:
            for job_id in requeued:
                tell(JobRequeued(job_id=job_id, cause=cause, worker=worker))
        if settled := self.job_settled:
            for job_id, why in failed:
                failure = Failure(type="system_error", reason="internal_error", message=why, retry=False)
                settled(JobSettled(job_id=job_id, slot=None, attempt=None, kind="failed", failure=failure))


def _all_of(observers: tuple[JobObserver, ...], method: Callable[[JobObserver, E], None]) -> Callable[[E], None] | None:
    """Return a function that calls the method of every observer that overrides it, or None."""
    name = method.__name__
    wanted = [
        _guarded(getattr(observer, name), type(observer).__name__)
        for observer in observers
        if getattr(type(observer), name) is not method
    ]
    if len(wanted) <= 1:  # no loop on the way of every job
        return wanted[0] if wanted else None

    def tell(event: E) -> None:
        for one in wanted:
            one(event)

    return tell


def _guarded(hear: Callable[[E], None], observer: str) -> Callable[[E], None]:
    def tell(event: E) -> None:
        try:
            hear(event)
        except Exception as error:  # no job may suffer from who watches it
            log.error("observer.failed", observer=observer, method=hear.__name__, exc_info=error)

    return tell
