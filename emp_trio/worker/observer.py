"""Events of jobs and services as frozen values, and the protocol of those that observe them.

Logging, metrics and traces are observers. An event that no observer wants is not even made.
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
    """A slot has a job. ``size`` is the number of bytes of its hash that came with the claim."""

    job_id: str
    slot: str
    attempt: int
    size: int


class JobStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The connector is about to run."""

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
    """A stage is over, however it ended. ``seconds`` of the service stage are without the stages inside it."""

    job_id: str
    slot: str
    attempt: int
    stage: Stage
    seconds: float


class JobSettled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt is over and its outcome was sent to Redis; or a job failed for good because its leases ran out.

    Attributes:
        slot: worker id; None where the job was not held by this machine.
        attempt: its number; None where it is not known.
        kind: ``completed``, ``failed`` (for good), ``retry`` or ``release`` (handed back without using an attempt).
        stored: False where the lease was gone: nothing was changed, somebody else has the job.
        failure: type, reason and text, of ``failed`` and ``retry``.
        delay: seconds until the job is tried again.
        seconds: from the claim to now; 0.0 where the job was not held by this machine.
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
    """A job of any machine went back to the queue.

    Attributes:
        cause: its attempt failed (``retry``) or was handed back (``release``), its lease ran out (``lease_expired``),
            or it was held by a worker without leases that is gone (``worker_gone``).
        worker: the worker that is gone, else the empty text.
        delay: seconds until it may be claimed again.
    """

    job_id: str
    cause: Literal["retry", "release", "lease_expired", "worker_gone"]
    worker: str = ""
    delay: float = 0.0


class LeaseLost(msgspec.Struct, frozen=True, kw_only=True):
    """A running attempt is being stopped, because its lease is gone or is to be given up.

    Attributes:
        cause: its job was cancelled, and this machine heard of it by a message (``cancel_heard``) or when it renewed
            the lease (``cancelled``); somebody else has the job (``lost``); the lease could not be renewed in time
            (``expired``); its connector goes on although it was told to stop (``stuck``).
    """

    job_id: str
    slot: str
    cause: LeaseLossCause


class ConnectorHealthChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A service became usable or stopped being so.

    Attributes:
        service, connector: names of the worker service and of its connector.
        state: by its health check, or by what became of its jobs (``circuit_open``, ``circuit_closed``).
        detail: why.
        seconds: for how long an open circuit keeps jobs away.
    """

    service: str
    connector: str
    state: Literal["healthy", "unhealthy", "circuit_open", "circuit_closed"]
    detail: str = ""
    seconds: float = 0.0


class JobObserver:
    """Derive from it and override what you want to hear. The calls are made in the event loop: they must be quick and
    must not block; an error in one is logged and stops nothing."""

    def job_claimed(self, event: JobClaimed) -> None:
        """A slot has a job."""

    def job_started(self, event: JobStarted) -> None:
        """A connector is about to run."""

    def job_progressed(self, event: JobProgressed) -> None:
        """Progress was published."""

    def stage_ended(self, event: StageEnded) -> None:
        """A stage of an attempt is over."""

    def job_settled(self, event: JobSettled) -> None:
        """An attempt is over."""

    def job_requeued(self, event: JobRequeued) -> None:
        """A job went back to the queue."""

    def lease_lost(self, event: LeaseLost) -> None:
        """A running attempt is being stopped."""

    def connector_health_changed(self, event: ConnectorHealthChanged) -> None:
        """A service became usable or stopped being so."""


E = TypeVar("E")


class Observers:
    """All observers of a machine. Each attribute tells those that want the event, and is None where nobody does:
    ``if tell := observers.job_claimed: tell(JobClaimed(...))``."""

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
        """Jobs that nobody works on any more went back to the queue, or (id, reason) failed for good."""
        if tell := self.job_requeued:
            for job_id in requeued:
                tell(JobRequeued(job_id=job_id, cause=cause, worker=worker))
        if settled := self.job_settled:
            for job_id, why in failed:
                failure = Failure(type="system_error", reason="internal_error", message=why, retry=False)
                settled(JobSettled(job_id=job_id, slot=None, attempt=None, kind="failed", failure=failure))


def _all_of(observers: tuple[JobObserver, ...], method: Callable[[JobObserver, E], None]) -> Callable[[E], None] | None:
    """What calls this method of every observer that overrides it; None where none does."""
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
