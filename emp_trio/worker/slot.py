"""One slot running one job: read it, run its connector in a nursery of its own, make an outcome of whatever happens."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError, InvalidJob, ServiceError, failure_of, leading_error
from emp_trio.failures import Failure
from emp_trio.jobs import JobResult
from emp_trio.queue import messages
from emp_trio.queue.messages import Identity, Settlement
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector
from emp_trio.worker.attempt import Attempt

log = structlog.get_logger("emp_trio.slot")


async def run_attempt(
    attempt: Attempt, connector: Callable[[], Connector], who: Identity, redactor: Redactor
) -> Settlement | None:
    """Run one attempt to its end.

    Args:
        attempt: the attempt; its scope is the job's, entered here.
        connector: finds the connector, or raises the error that is the outcome.
        who: slot and machine.
        redactor: takes the machine's secrets out of what is published.

    Returns:
        the settlement, or None where there is nothing to settle: the lease is lost or the job was cancelled.

    Raises:
        trio.Cancelled: the machine itself is being cancelled; the caller hands the job back.
    """
    started = trio.current_time()
    done: list[JobResult | Exception] = []
    async with trio.open_nursery() as nursery:
        attempt.enter(nursery.cancel_scope)
        try:
            with attempt.stages.service():
                done.append(await connector().run(attempt.job, attempt))
        except Exception as error:  # noqa: BLE001 - whatever a connector raises is this job's failure
            done.append(error)
    if done and (isinstance(done[0], JobResult) or not attempt.ended_by()):
        return _settlement(attempt, done[0], who, redactor, trio.current_time() - started)
    return messages.released() if attempt.ended_by() in ("drain", "shutdown") else None


def _settlement(
    attempt: Attempt, outcome: JobResult | Exception, who: Identity, redactor: Redactor, took: float
) -> Settlement:
    """The settlement for a result or an error. A result that can't be used is an error of the connector."""
    now = time.time()
    try:
        if isinstance(outcome, Exception):
            raise leading_error(outcome)
        result = checked_result(outcome)
        result = msgspec.structs.replace(result, processing_time_ms=round(took * 1000))
        return messages.completed(attempt.job, result, who, now=now, redactor=redactor)
    except Exception as error:
        failure = failure_of(error)
        if not isinstance(error, EmpTrioError):
            log.warning("connector.error", error=redactor.text(failure.message), exc_info=error)
        failure = _redacted(failure, attempt, redactor)
        return messages.failed(attempt.job, failure, who, now=now, random=random.random())


def checked_result(result: object) -> JobResult:
    """A result that says success, or the error that it stands for.

    Raises:
        ServiceError: the connector returned something else than a JobResult, or one without success.
    """
    if not isinstance(result, JobResult):
        raise ServiceError(
            f"the connector returned {type(result).__name__} instead of a JobResult",
            type="system_error",
            reason="internal_error",
            retry=False,
        )
    if not result.success:
        raise ServiceError(result.error or "the connector reported a failure without saying why")
    return result


def _redacted(failure: Failure, attempt: Attempt, redactor: Redactor) -> Failure:
    text = redactor.text(failure.message)
    key = attempt.job.ctx.account_key
    if key is not None:
        text = Redactor([key]).text(text)
    return msgspec.structs.replace(failure, message=text)


def unreadable(job_id: str, attempt: int, fields: dict[str, bytes], error: InvalidJob, who: Identity) -> Settlement:
    """The settlement of a job that can't even be read: it fails for good, with what of it can be read."""
    readable = {k: v for k, v in fields.items() if k in ("retry_count", "max_retries", "workflow_id")}
    try:
        job = messages.read_job(job_id, attempt, {**readable, "service_required": b"unknown"})
    except InvalidJob:
        job = messages.read_job(job_id, attempt, {"service_required": b"unknown"})
    return messages.failed(job, error.failure, who, now=time.time(), random=0.0)
