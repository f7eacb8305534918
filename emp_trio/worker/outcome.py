"""Classify the end of an attempt, a result or an error, into the settlement to store. Pure."""

from __future__ import annotations

import math
import traceback
from typing import Final

import msgspec

from emp_trio.attempt import Ending
from emp_trio.errors import InvalidJob, NotStarted, ServiceError, failure_of
from emp_trio.failures import Failure
from emp_trio.jobs import Job, JobResult
from emp_trio.nursery import leading_error
from emp_trio.queue import settlement as settlements
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.settlement import Identity, Settlement, released
from emp_trio.retry import LONGEST_WAIT
from emp_trio.secrets import Redactor
from emp_trio.worker.circuit import Verdict, verdict

_LONGEST_TEXT: Final = 64 * 2**10  # maximum characters of an error that are processed; fewer are stored
_LONG_WAIT: Final = 30.0  # seconds; shorter waits are slept within the call


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True):
    """End of a connector's run.

    Attributes:
        completed: whether it returned.
        returned: its return value.
        raised: its error, without cancellations.
        ending: reason for stopping it from outside, or None.
        seconds: duration.
        last_progress: message, step and number of steps of its last report.
    """

    completed: bool
    returned: object = None
    raised: BaseException | None = None
    ending: Ending | None = None
    seconds: float = 0.0
    last_progress: tuple[str, str, int] = ("", "", 0)

    @property
    def stopped(self) -> bool:
        """Return whether it was stopped from outside before it had a result."""
        return self.ending is not None and not isinstance(self.returned, JobResult)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of an attempt.

    Attributes:
        settlement: settlement to store; None if the lease is lost or the job was cancelled.
        verdict: effect on the circuit of the service.
        error: error of the attempt, or None.
    """

    settlement: Settlement | None
    verdict: Verdict = "neutral"
    error: BaseException | None = None


def classify(
    job: Job,
    end: AttemptEnd,
    who: Identity,
    *,
    redactor: Redactor,
    now: float,
    random: float,
    size: int | None = None,
) -> Outcome:
    """Classify the end of an attempt.

    Args:
        now: seconds since the epoch.
        random: a number from 0 to 1, for a retry's delay.
        size: :func:`~emp_trio.offload.weight` of what the connector returned, where that is known.
    """
    if end.stopped:
        return Outcome(settlement=released() if end.ending == "drain" else None, error=end.raised)
    error = end.raised
    if error is None:
        try:
            if not end.completed:
                raise RuntimeError("the connector ended by a cancellation that nobody had asked for")
            settlement = succeeded(job, end.returned, who, redactor=redactor, took=end.seconds, now=now, size=size)
            if any(end.last_progress):
                settlement = msgspec.structs.replace(settlement, last_progress=end.last_progress)
            return Outcome(settlement=settlement, verdict="good")
        except Exception as unusable:  # noqa: BLE001 - a result that can't be used is an error of the connector
            error = unusable
    settlement, leading = failed(job, error, who, redactor=redactor, now=now, random=random), leading_error(error)
    if settlement.failure is not None:
        said = verdict(leading, settlement.failure)
    else:
        said = "unready" if isinstance(leading, NotStarted) else "neutral"
    return Outcome(settlement=settlement, verdict=said, error=error)


def succeeded(
    job: Job, result: object, who: Identity, *, redactor: Redactor, took: float, now: float, size: int | None = None
) -> Settlement:
    """Return the settlement of an attempt whose connector returned.

    Args:
        result: return value of the connector.
        redactor: masks secrets in what is published.
        took: duration in seconds.
        now: seconds since the epoch.
        size: :func:`~emp_trio.offload.weight` of the result, if known.

    Raises:
        ServiceError: the result is not a JobResult, is not a success, or can't be stored.
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
    result = msgspec.structs.replace(result, processing_time_ms=round(took * 1000))
    return settlements.completed(job, result, who, now=now, redactor=redactor, size=size)


def failed(
    job: Job, error: BaseException, who: Identity, *, redactor: Redactor, now: float, random: float
) -> Settlement:
    """Return the settlement of a failed attempt: retry or failure.

    The job is released without counting an attempt if the service did not start it, or asked for a long wait.

    Args:
        random: random number from 0 to 1, for the delay of the retry.
    """
    failure = described(error, redactor)
    wait = failure.retry_after or 0.0
    if isinstance(leading_error(error), NotStarted):
        return released(delay=wait)
    in_time = job.deadline is None or now + wait < job.deadline
    if failure.type == "rate_limit" and failure.retry and wait > _LONG_WAIT and in_time:
        return released(delay=wait)
    if job.deadline is not None and now >= job.deadline:
        failure = msgspec.structs.replace(failure, retry=False)
    return settlements.failed(job, failure, who, now=now, random=random)


def unreadable(
    job_id: str,
    attempt: int,
    fields: dict[str, bytes],
    error: Exception,
    who: Identity,
    *,
    redactor: Redactor,
    now: float,
) -> Settlement:
    """Return the settlement of a job that can't be read or attempted: a failure, permanent for an invalid job."""
    readable = {k: v for k, v in fields.items() if k in ("retry_count", "max_retries", "workflow_id")}
    try:
        job = read_job(job_id, attempt, {**readable, "service_required": b"unknown"})
    except InvalidJob:
        job = read_job(job_id, attempt, {"service_required": b"unknown"})
    return settlements.failed(job, described(error, redactor), who, now=now, random=0.0)


def described(error: BaseException, redactor: Redactor) -> Failure:
    """Return the failure for any error, fit to be stored: valid type and reason, redacted message, finite wait."""
    error = leading_error(error)
    try:
        failure = msgspec.convert(msgspec.structs.asdict(failure_of(error)), Failure)
    except Exception:  # noqa: BLE001 - a connector's error may fail in its own __str__
        text = traceback.format_exception_only(error)[-1].strip()  # never fails
        failure = Failure(type="system_error", reason="internal_error", message=text, retry=True)
    wait = failure.retry_after
    if wait is not None:
        wait = min(wait, LONGEST_WAIT) if 0 < wait < math.inf else None
    message = redactor.excerpt(failure.message, _LONGEST_TEXT)
    return msgspec.structs.replace(failure, message=message, retry_after=wait)
