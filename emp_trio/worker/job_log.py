"""Log the events of jobs and services, as an observer."""

from __future__ import annotations

from typing import Final

import structlog

from emp_trio.worker.observer import (
    ConnectorHealthChanged,
    JobObserver,
    JobRequeued,
    JobSettled,
    LeaseLost,
)

_leases = structlog.get_logger("emp_trio.leases")
_reaper = structlog.get_logger("emp_trio.reaper")
_adopter = structlog.get_logger("emp_trio.adopter")
_connectors = structlog.get_logger("emp_trio.connector")

_LOST: Final = "the lease was gone when the attempt ended"
_STUCK: Final = "its connector goes on although it was told to stop; its lease is left to run out"


class JobLog(JobObserver):
    """Logs one line per ended attempt, requeued job, lost lease and change of health (docs/operating.md)."""

    def __init__(self) -> None:
        self._slots = structlog.get_logger(
            "emp_trio.slot"
        ).bind()  # bound once, because binding costs more than a suppressed line

    def job_settled(self, event: JobSettled) -> None:
        """Log ``job.completed``, ``job.released``, ``job.retry``, ``job.failed`` or ``job.lost``."""
        if event.kind == "completed" and event.stored:  # nearly every job
            self._slots.debug("job.completed", job=event.job_id, slot=event.slot, attempt=event.attempt)
            return
        job, slot, attempt, failure = event.job_id, event.slot, event.attempt, event.failure
        if not event.stored:
            self._slots.warning("job.lost", job=job, slot=slot, attempt=attempt, kind=event.kind, why=_LOST)
        elif failure is None:
            self._slots.info("job.released", job=job, slot=slot, attempt=attempt)
        elif slot is None:
            _reaper.error("job.failed", job=job, error=failure.message)
        else:
            self._slots.warning(
                "job.failed" if event.kind == "failed" else "job.retry",
                job=job,
                slot=slot,
                attempt=attempt,
                type=failure.type,
                reason=failure.reason,
                error=failure.message,
                delay=event.delay,
            )

    def job_requeued(self, event: JobRequeued) -> None:
        """Log ``job.requeued`` or ``job.adopted``; :meth:`job_settled` logs jobs requeued by their own attempt."""
        if event.cause == "lease_expired":
            _reaper.warning("job.requeued", job=event.job_id, why="its lease ran out")
        elif event.cause == "worker_gone":
            _adopter.warning("job.adopted", job=event.job_id, worker=event.worker, why="its worker is gone")

    def lease_lost(self, event: LeaseLost) -> None:
        """Log ``job.cancelled``, ``job.stuck`` or ``lease.gone``; nothing for a lease not renewed in time."""
        match event.cause:
            case "cancel_heard":
                _leases.info("job.cancelled", job=event.job_id, slot=event.slot)
            case "stuck":
                _leases.error("job.stuck", job=event.job_id, slot=event.slot, hint=_STUCK)
            case "lost" | "cancelled":
                _leases.warning("lease.gone", job=event.job_id, slot=event.slot, why=event.cause)

    def connector_health_changed(self, event: ConnectorHealthChanged) -> None:
        """Log ``connector.healthy``, ``.unhealthy``, ``.circuit_open`` or ``.circuit_closed``."""
        match event.state:
            case "healthy":
                _connectors.info("connector.healthy", service=event.service, connector=event.connector)
            case "unhealthy":
                _connectors.warning("connector.unhealthy", service=event.service, detail=event.detail)
            case "circuit_open":
                _connectors.warning(
                    "connector.circuit_open", service=event.service, seconds=event.seconds, error=event.detail
                )
            case "circuit_closed":
                _connectors.info("connector.circuit_closed", service=event.service)
