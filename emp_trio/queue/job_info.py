"""Read jobs and slots from their hashes, as any worker of the fleet writes them. Pure.

Sources: queue protocol 1.3 (job hash and status groups), 1.4 (stored outcomes), 1.5 (worker hash).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from emp_trio.queue.messages import iso

_LARGEST: Final = 2**53
_NEVER: Final = "9999-12-31T23:59:59.999Z"

State = Literal["pending", "delayed", "active", "completed", "failed"]

LISTED: Final = tuple(
    "id service_required status priority worker_id attempt retry_count max_retries created_at started_at completed_at "
    "failed_at error failure_type failure_reason cancelled_at workflow_id".split()
)
"""Fields of a job's hash that a list shows."""

WORKER_FIELDS: Final = (
    "machine_id",
    "status",
    "current_job_id",
    "capabilities",
    "last_heartbeat",
    "connector_statuses",
)


class JobInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the queue knows of a job. ``result`` and ``payload`` are there only where one job was asked for."""

    id: str
    type: str
    status: str
    state: State
    priority: int = 50
    progress: float | None = None
    message: str = ""
    worker_id: str | None = None
    attempt: int = 0
    retry_count: int = 0
    max_attempts: int = 3
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = None
    failure_type: str | None = None
    failure_reason: str | None = None
    cancelled: bool = False
    workflow_id: str | None = None
    not_before: str | None = None
    payload: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of the fleet as Redis has it."""

    worker_id: str
    machine_id: str
    status: str
    current_job_id: str | None
    services: tuple[str, ...]
    last_heartbeat: str
    alive: bool
    troubles: dict[str, str] = {}
    """Connectors that take no jobs, by name, each with the reason that it gives."""


def job_info(
    job_id: str,
    fields: Mapping[str, bytes],
    *,
    progress: Sequence[bytes | None] = (None, None),
    due: float | None = None,
    stored: bytes | None = None,
) -> JobInfo:
    """A job from its hash.

    Args:
        fields: the hash, or the part of it that was read; the empty text is an unset field.
        progress: ``progress`` and ``message`` of its progress hash.
        due: milliseconds since the epoch at which a delayed job goes back into the queue.
        stored: its value in ``jobs:completed`` or ``jobs:failed``.
    """
    text = {name: value.decode("utf-8", "replace") for name, value in fields.items() if name not in ("payload", "ctx")}
    status = text.get("status") or "pending"
    state = state_of(status, delayed=due is not None)
    outcome = decoded(stored or b"")
    ended_badly = state == "failed"
    percent = _number(progress[0])
    return JobInfo(
        id=job_id,
        type=text.get("service_required", ""),
        status=status,
        state=state,
        priority=_int(text, "priority", 50),
        progress=100.0 if state == "completed" else percent,
        message=(progress[1] or b"").decode("utf-8", "replace") if state == "active" else "",
        worker_id=text.get("worker_id") or None,
        attempt=_int(text, "attempt", 0),
        retry_count=_int(text, "retry_count", 0),
        max_attempts=_int(text, "max_retries", 3),
        created_at=text.get("created_at", ""),
        started_at=text.get("started_at") or None,
        ended_at=text.get({"completed": "completed_at", "failed": "failed_at"}.get(state, "")) or None,
        # old workers write no error into the hash
        error=None if state == "completed" else text.get("error") or _said(outcome.get("error"), ended_badly),
        failure_type=(text.get("failure_type") or None) if state != "completed" else None,
        failure_reason=(text.get("failure_reason") or None) if state != "completed" else None,
        cancelled=ended_badly and (bool(text.get("cancelled_at")) or outcome.get("cancelled") is True),
        workflow_id=text.get("workflow_id") or None,
        not_before=_iso(due),
        payload=decoded(fields["payload"]) if fields.get("payload") else None,
        result=_result(outcome) if state == "completed" and stored else None,
    )


def unreadable(job_id: str, state: State) -> JobInfo:
    """Stands in a list for an id whose keys are of a wrong type."""
    return JobInfo(id=job_id, type="", status="unreadable", state=state, error=f"the key job:{job_id} is not a hash")


def state_of(status: str, *, delayed: bool) -> State:
    """The group of a status, as the fleet's monitor groups them (queue protocol 1.3), with delayed ones apart."""
    match status:
        case "completed":
            return "completed"
        case "failed" | "cancelled" | "timeout" | "unworkable":
            return "failed"
        case "assigned" | "accepted" | "in_progress":
            return "active"
        case _:
            return "delayed" if delayed else "pending"


def worker_info(worker_id: str, values: Sequence[bytes | None], *, alive: bool) -> WorkerInfo:
    """A slot from the :data:`WORKER_FIELDS` of its hash; ``alive`` is whether its heartbeat stands."""
    fields = {k: (v or b"").decode("utf-8", "replace") for k, v in zip(WORKER_FIELDS, values, strict=True)}
    services = decoded(fields["capabilities"].encode()).get("services")
    return WorkerInfo(
        worker_id=worker_id,
        machine_id=fields["machine_id"],
        status=fields["status"],
        current_job_id=fields["current_job_id"] or None,
        services=tuple(map(str, services)) if isinstance(services, list) else (),
        last_heartbeat=fields["last_heartbeat"],
        alive=alive,
        troubles=_troubles(fields["connector_statuses"]),
    )


def _troubles(statuses: str) -> dict[str, str]:
    """Why connectors take no jobs, from what a worker writes of them into its hash (queue protocol 2.6 b)."""
    return {
        name: str(status.get("error_message") or status["status"])
        for name, status in decoded(statuses.encode()).items()
        if isinstance(status, dict) and status.get("status") in ("inactive", "error")
    }


def unreadable_worker(worker_id: str, *, alive: bool) -> WorkerInfo:
    """Stands in the list for a slot whose key is of a wrong type."""
    return WorkerInfo(
        worker_id=worker_id,
        machine_id="",
        status="unreadable",
        current_job_id=None,
        services=(),
        last_heartbeat="",
        alive=alive,
    )


def decoded(encoded: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one where it can't be read."""
    try:
        value = msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _result(outcome: dict[str, Any]) -> dict[str, Any] | None:
    """The JobResult in a stored outcome; the API stores that of a delegated job without the wrapper."""
    result = outcome.get("data") if "completed_at" in outcome else outcome
    return result if isinstance(result, dict) and result else None


def _said(error: Any, ended_badly: bool) -> str | None:
    return error if ended_badly and isinstance(error, str) and error else None


def _number(value: bytes | str | None) -> float | None:
    """A number that JSON and every reader can hold, or None."""
    try:
        number = float(value or "x")
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST else None


def _int(text: Mapping[str, str], name: str, default: int) -> int:
    number = _number(text.get(name))
    return default if number is None else int(number)


def _iso(ms: float | None) -> str | None:
    """A time as text; one that no calendar has is the last there is."""
    try:
        return iso(ms / 1000) if ms is not None else None
    except (ValueError, OverflowError, OSError):
        return _NEVER
