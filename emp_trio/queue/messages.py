"""Hashes and messages of the fleet as values: reading a job, writing a submission, an outcome, its records. Pure.

Sources: queue protocol 1.3 (job hash), 1.4, 1.8 (attestations), 2.1 (job_submitted), 2.4, 2.5.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from emp_trio import __version__
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.failures import Failure
from emp_trio.jobs import Job, JobContext, JobResult, not_an_object
from emp_trio.offload import characters, weight
from emp_trio.queue.sanitiser import sanitised, sanitised_text, without_file_bytes
from emp_trio.retry import requeue_delay
from emp_trio.secrets import Redactor
from emp_trio.sizes import LARGE

MAX_PAYLOAD_BYTES: Final = 64 * 2**20
MAX_RESULT_BYTES: Final = 4 * 2**20
MAX_COUNT: Final = 10**9
_LARGEST: Final = 2**53  # the largest number that every reader of JSON holds exactly
_LEFT_OUT: Final = "<left out: the result would be too large>"
MAX_ERROR_CHARACTERS: Final = 4000
_INLINE: Final = "@INLINE_FILE@"  # stands for a file in the result while everything else is looked through for bytes
_FILE_RUN: Final = 4096  # a hash or a token may be long, a file is longer
_encode: Final = msgspec.json.Encoder().encode

Kind = Literal["completed", "failed", "retry", "release"]


def iso(now: float) -> str:
    """Seconds since the epoch as the fleet's ISO text (UTC, milliseconds, ``Z``)."""
    second, part = divmod(now, 1)
    micros = round(part * 1_000_000)  # which may be a whole second
    return f"{_iso_second(int(second) + micros // 1_000_000)}{micros % 1_000_000 // 1000:03d}Z"


@functools.lru_cache(16)
def _iso_second(second: int) -> str:
    """The text but for its milliseconds; jobs come by the hundred in a second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def read_job(job_id: str, attempt: int, fields: Mapping[str, bytes]) -> Job:
    """A job from its hash. Whatever JSON its payload and its ``ctx`` are, they are taken: whether a job can live with
    them is for its connector and its storage to say.

    Args:
        job_id: the id it was claimed by.
        attempt: number of this claim.
        fields: the hash; the empty text is how the fleet writes an unset field.

    Raises:
        InvalidJob: a field can't be read; the message names it.
    """
    if len(fields.get("payload", b"")) > MAX_PAYLOAD_BYTES:
        raise InvalidJob(f"job {job_id}: the payload is larger than {MAX_PAYLOAD_BYTES >> 20} MiB")
    text = {name: _text(job_id, name, value) for name, value in fields.items() if value and name in _TEXT_FIELDS}
    job_type = text.get("service_required") or text.get("job_type")
    if not job_type:
        raise InvalidJob(f"job {job_id}: service_required is missing", reason="missing_required_field")
    payload, bare = _object_or_not(job_id, "payload", fields)
    ctx, bare_ctx = _object_or_not(job_id, "ctx", fields)
    checkpoint = _object(job_id, "checkpoint", fields)
    inner_ctx = payload.get("ctx")
    return Job(
        id=job_id,
        type=job_type,
        payload=payload,
        bare_payload=bare,
        ctx=JobContext.from_wire(ctx, inner_ctx if isinstance(inner_ctx, dict) else None, given=bare_ctx),
        requirements=_object(job_id, "requirements", fields, lists=True),
        priority=_int(text, "priority") or 50,
        attempt=attempt,
        retry_count=_count(text, "retry_count"),
        max_attempts=max(1, min(MAX_COUNT, _int(text, "max_retries") or 3)),
        created_at=text.get("created_at", ""),
        customer_id=text.get("customer_id") or None,
        workflow_id=text.get("workflow_id") or None,
        workflow_priority=_int(text, "workflow_priority"),
        workflow_datetime=_int(text, "workflow_datetime"),
        current_step=_int(text, "current_step"),
        total_steps=_int(text, "total_steps"),
        checkpoint=checkpoint,
        deadline=None if (ms := _int(text, "deadline")) is None else ms / 1000,
    )


_TEXT_FIELDS: Final = frozenset(
    "service_required job_type priority retry_count max_retries created_at customer_id workflow_id workflow_priority "
    "workflow_datetime current_step total_steps deadline".split()
)


def _text(job_id: str, name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidJob(f"job {job_id}: {name} is not UTF-8 text", reason="invalid_format") from None


def _json(job_id: str, name: str, fields: Mapping[str, bytes]) -> Any:
    value = fields.get(name)
    if not value:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJob(f"job {job_id}: {name} is not valid JSON: {error}", reason="invalid_format") from None


def _object_or_not(job_id: str, name: str, fields: Mapping[str, bytes]) -> tuple[dict[str, Any], Any]:
    """A field as the object that it should be, and as what it is instead."""
    decoded = _json(job_id, name, fields)
    return (decoded, None) if isinstance(decoded, dict) else ({}, decoded)


def _object(job_id: str, name: str, fields: Mapping[str, bytes], *, lists: bool = False) -> dict[str, Any] | None:
    if not fields.get(name):
        return None
    decoded = _json(job_id, name, fields)
    if isinstance(decoded, dict):
        return decoded
    if lists and decoded == []:  # the fleet's clients write an empty list for no requirements
        return None
    raise InvalidJob(f"job {job_id}: {not_an_object(name, decoded)}", reason="invalid_format")


def _int(text: Mapping[str, str], name: str) -> int | None:
    """A number, or None where there is none that can be read: the fleet's readers do the same."""
    value = text.get(name)
    if value is None:
        return None
    try:
        number = int(float(value))
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST else None


def _count(text: Mapping[str, str], name: str) -> int:
    """A count, 0 where there is none that can be read; it is counted on from there, so it is kept within bounds."""
    return min(MAX_COUNT, max(0, _int(text, name) or 0))


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of the one call that ends an attempt (see ``functions/settle.lua``).

    ``last_words``: message, step and number of steps of the last progress of a completed attempt; published with its
    100 percent.
    """

    kind: Kind
    retry_count: int = 0
    delay: float = 0.0
    failure: Failure | None = None
    stored: bytes = b""
    message: bytes = b""
    records: tuple[tuple[str, bytes], ...] = ()
    last_words: tuple[str, str, int] = ("", "", 0)


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


def cancelled_job(message: bytes) -> str | None:
    """The id in a ``cancel_job`` message (queue protocol 2), or None where it can't be read."""
    try:
        body = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    job_id = body.get("job_id") if isinstance(body, dict) else None
    return job_id if isinstance(job_id, str) else None


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
