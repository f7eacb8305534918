"""Settlements: the arguments of the one call that ends an attempt, with the messages and records it writes. Pure.

Sources: queue protocol 1.4, 1.8 (attestations), 2.4 (complete_job), 2.5 (job_failed).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from emp_trio import __version__
from emp_trio.errors import ServiceError
from emp_trio.failures import Failure
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import characters, weight
from emp_trio.queue.messages import iso
from emp_trio.queue.sanitiser import sanitised, sanitised_text, without_file_bytes
from emp_trio.retry import requeue_delay
from emp_trio.secrets import Redactor
from emp_trio.sizes import LARGE

MAX_RESULT_BYTES: Final = 4 * 2**20
_LEFT_OUT: Final = "<left out: the result would be too large>"
MAX_ERROR_CHARACTERS: Final = 4000
_INLINE: Final = "@INLINE_FILE@"  # stands for a file in the result while everything else is looked through for bytes
_FILE_RUN: Final = 4096  # a hash or a token may be long, a file is longer
_encode: Final = msgspec.json.Encoder().encode

Kind = Literal["completed", "failed", "retry", "release"]


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of the one call that ends an attempt (see ``functions/settle.lua``).

    ``last_progress``: message, step and number of steps of the last progress of a completed attempt; published with its
    100 percent.
    """

    kind: Kind
    retry_count: int = 0
    delay: float = 0.0
    failure: Failure | None = None
    stored: bytes = b""
    message: bytes = b""
    records: tuple[tuple[str, bytes], ...] = ()
    last_progress: tuple[str, str, int] = ("", "", 0)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who ran the attempt."""

    worker_id: str
    machine_id: str


def completed(
    job: Job,
    result: JobResult,
    who: Identity,
    *,
    now: float,
    redactor: Redactor | None = None,
    size: int | None = None,
) -> Settlement:
    """The settlement of a successful attempt (queue protocol 2.4 and the completion record of 1.8).

    No file bytes go into Redis: long base64 is replaced in the published result too. The one exception is a small file
    that the job asked for in place of a stored one: the data URL in ``data.image_url``.

    Args:
        now: seconds since the epoch.
        redactor: takes the machine's own secrets out of the result; those of the job's ``ctx`` are taken out anyway.
        size: the result's :func:`~emp_trio.offload.weight`, where that is known.

    Raises:
        ServiceError: the result can't be written as JSON, or is too large for Redis even without the raw answer.
    """
    inline = result.data.get("image_url")
    if isinstance(inline, str) and inline.startswith("data:"):
        result = msgspec.structs.replace(result, data={**result.data, "image_url": _INLINE})
    else:
        inline = None
    if (size is None or size > LARGE) and weight(result) > LARGE:
        result = _lightened(result)
    encoded, request = _written(result, job, redactor)
    for smaller in _SMALLER:
        if len(encoded) > MAX_RESULT_BYTES:
            result = smaller(result)
            encoded, request = _written(result, job, redactor)
    if len(encoded) > MAX_RESULT_BYTES:
        raise _unusable(f"the connector's result is {len(encoded)} bytes of JSON; at most {MAX_RESULT_BYTES} are kept")
    clean = sanitised(encoded)
    if inline is not None:
        encoded = encoded.replace(_encode(_INLINE), _encode(inline), 1)
    ms, at = int(now * 1000), iso(now)
    record = {
        "job_id": job.id,
        "worker_id": who.worker_id,
        "status": "completed",
        "completed_at": at,
        "result": clean,
        "raw_service_output": clean,
        "raw_service_request": request,
        "retry_count": _rerun(job),
        "workflow_id": job.workflow_id,
        "current_step": _as_text(job.current_step),
        "total_steps": _as_text(job.total_steps),
        "machine_id": who.machine_id,
        "worker_version": __version__,
        "attestation_created_at": ms,
    }
    message = {
        "job_id": job.id,
        "worker_id": who.worker_id,
        "progress": 100,
        "status": "completed",
        "message": "Job completed successfully",
        "result": msgspec.Raw(encoded),
        "timestamp": ms,
        **_workflow(job),
    }
    return Settlement(
        kind="completed",
        stored=_encode({"success": True, "data": msgspec.Raw(encoded), "completed_at": at}),
        message=_encode(message),
        records=((f"worker:completion:{_step(job)}:attempt:{_rerun(job) + 1}", _encode(record)),),
    )


def _written(result: JobResult, job: Job, redactor: Redactor | None) -> tuple[bytes, str | None]:
    """A result, and the request that led to it, as JSON without file bytes and secrets. Raises ServiceError."""
    try:
        encoded = _redacted(sanitised(_encode(result), shortest=_FILE_RUN), job, redactor).encode()
        sent = result.raw_request_payload
        request = None if sent is None else _redacted(sanitised(_encode(sent)), job, redactor)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unusable(f"the connector's result can't be written as JSON: {error}") from None
    return encoded, request


def _lightened(result: JobResult) -> JobResult:
    """A large result without file bytes and, as far as that is needed, without what is there for debugging only: as
    one piece it is encoded when it is small. Raises ServiceError where it never will be."""
    parts = {name: getattr(result, name) for name in ("data", "metadata", "service_metadata", "raw_request_payload")}
    try:
        clean = {name: without_file_bytes(value, shortest=_FILE_RUN) for name, value in parts.items()}
        result = msgspec.structs.replace(result, **clean)
        for smaller in _SMALLER:
            if (size := characters(result)) > MAX_RESULT_BYTES:
                result = smaller(result)
    except RecursionError:
        raise _unusable("the connector's result can't be written as JSON: it is nested too deeply") from None
    if (size := characters(result)) > MAX_RESULT_BYTES:
        raise _unusable(f"the connector's result has {size} characters; at most {MAX_RESULT_BYTES} bytes are kept")
    return result


def _without_request(result: JobResult) -> JobResult:
    return msgspec.structs.replace(result, raw_request_payload=_LEFT_OUT if result.raw_request_payload else None)


def _without_raw(result: JobResult) -> JobResult:
    """The result without the service's answer word for word."""

    def lean(part: dict[str, Any]) -> dict[str, Any]:
        return {key: _LEFT_OUT if key in ("raw_output", "raw_service_output") else part[key] for key in part}

    return msgspec.structs.replace(result, data=lean(result.data), metadata=lean(result.metadata))


# It is paid for: better without what is there for debugging.
_SMALLER: Final = (_without_request, _without_raw)


def failed(job: Job, failure: Failure, who: Identity, *, now: float, random: float) -> Settlement:
    """The settlement of a failed attempt: a retry while attempts are left and one makes sense, else the end.

    Args:
        random: a number from 0 to 1, for the retry's delay.
    """
    failure = msgspec.structs.replace(failure, message=_writable(failure.message))
    count = job.retry_count + 1
    again = failure.retry and count < job.max_attempts
    ms, at = int(now * 1000), iso(now)
    record: dict[str, Any] = {
        "attestation_type": "failure_retry" if again else "failure_permanent",
        "job_id": job.id,
        "worker_id": who.worker_id,
        "status": "failed_retrying" if again else "failed_permanent",
        "failed_at": at,
        "error_message": failure.message,
        "failure_type": failure.type,
        "failure_reason": failure.reason,
        "failure_description": failure.message,
        "raw_service_output": None,
        "raw_service_request": None,
        "retry_count": count,
        "will_retry": again,
        "max_retries": job.max_attempts,
        "workflow_id": job.workflow_id,
        "current_step": _as_text(job.current_step),
        "total_steps": _as_text(job.total_steps),
        "workflow_impact": ("workflow_interrupted" if again else "workflow_terminated") if job.workflow_id else None,
        "machine_id": who.machine_id,
        "worker_version": __version__,
        "attestation_created_at": ms,
    }
    encoded, end = _encode(record), f"attempt:{count}" if again else "permanent"
    records = [(f"worker:failure:{_step(job)}:{end}", encoded)]
    if not again:
        records.append((f"worker:completion:{_step(job)}", encoded))
    if job.workflow_id:
        workflow_record = record | {
            "workflow_attestation_type": "job_failure",
            "failed_job_id": job.id,
            "workflow_status": record["status"],
        }
        records.append((f"workflow:failure:{job.workflow_id}:{end}", _encode(workflow_record)))
    if again:
        return Settlement(
            kind="retry",
            retry_count=count,
            delay=requeue_delay(failure, retry_count=count, random=random),
            failure=failure,
            records=tuple(records),
        )
    message = {
        "job_id": job.id,
        "worker_id": who.worker_id,
        "status": "failed",
        "error": failure.message,
        "failed_at": at,
        "retry_count": count,
        "can_retry": False,
        "timestamp": ms,
        **_workflow(job),
    }
    return Settlement(
        kind="failed",
        retry_count=count,
        failure=failure,
        stored=_encode({"error": failure.message, "failed_at": at, "retry_count": count}),
        message=_encode(message),
        records=tuple(records),
    )


def released(*, delay: float = 0.0) -> Settlement:
    """The settlement that hands a job back without using an attempt; ``delay`` in seconds."""
    return Settlement(kind="release", delay=delay)


def _step(job: Job) -> str:
    step = f"step-id:{job.id.removeprefix('step-')}"
    return f"job-id:{job.workflow_id}:{step}" if job.workflow_id else step


def _rerun(job: Job) -> int:
    """R of queue protocol 1.8: the workflow-level retry number, else the queue's."""
    return job.ctx.workflow_attempt or job.retry_count


def _as_text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _workflow(job: Job) -> dict[str, Any]:
    if not job.workflow_id:
        return {}
    fields = {
        "workflow_id": job.workflow_id,
        "current_step": job.current_step,
        "total_steps": job.total_steps,
        "workflow_priority": job.workflow_priority,
        "workflow_datetime": job.workflow_datetime,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _redacted(encoded: str, job: Job, redactor: Redactor | None) -> str:
    """JSON without secrets in its texts, also in names of members."""
    ours = job.ctx.account_key
    for one in (redactor or _HELD, Redactor([ours]) if ours is not None else None):
        if one is not None and one.known(encoded) != encoded:
            encoded = _encode(one.known_in(msgspec.json.decode(encoded))).decode()
    return encoded


_HELD: Final = Redactor()  # knows what this process holds


def _writable(message: str) -> str:
    """An error text that Redis and its readers can take: Unicode, of bounded length, without file bytes."""
    text = sanitised_text(message).encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_ERROR_CHARACTERS else f"{text[:MAX_ERROR_CHARACTERS]}... ({len(text)} characters)"


def _unusable(message: str) -> ServiceError:
    return ServiceError(message, type="response_error", reason="invalid_response_format", retry=False)
