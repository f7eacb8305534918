"""Reading a job from its hash. Pure.

Source: queue protocol 1.3 (job hash).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.jobs import Job, JobContext, not_an_object

MAX_PAYLOAD_BYTES: Final = 64 * 2**20
_MAX_COUNT: Final = 10**9
_LARGEST: Final = 2**53  # the largest number that every reader of JSON holds exactly


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
        max_attempts=max(1, min(_MAX_COUNT, _int(text, "max_retries") or 3)),
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
    return min(_MAX_COUNT, max(0, _int(text, name) or 0))
