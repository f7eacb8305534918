"""Format jobs for people: rows of the outcome and of the details."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from rich.text import Text

from emp_trio.cli.output import console, shown
from emp_trio.printable import printable
from emp_trio.queue.client import JobInfo

Row = tuple[str, str]
_STYLES = {"completed": "bold green", "failed": "bold red", "cancelled": "bold yellow", "error": "bold red"}


def state_of(job: JobInfo) -> str:
    """Return the state in one word. The fleet stores cancelled jobs as failed; here they are ``cancelled``."""
    return "cancelled" if job.cancelled else job.state


def age(then: str | None, now: float) -> str:
    """Return the time since an ISO time (``45 s``, ``12 min``, ``3 h``, ``9 d``), or "" if it is invalid."""
    at = _epoch(then)
    if at is None:
        return ""
    seconds = max(0.0, now - at)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def print_rows(rows: list[Row]) -> None:
    """Print names and values on stdout: aligned on a terminal, else separated by tabs."""
    out = console()
    width = max(len(name) for name, _ in rows) + 2 if out.is_terminal else 0
    for name, value in rows:
        if width:
            out.print(Text.assemble((name.ljust(width), _STYLES.get(name, "bold")), printable(value)))
        else:
            print(f"{name}\t{printable(value)}")


def outcome(job: JobInfo) -> list[Row]:
    """Return rows for a job that has ended: state, duration, and result or failure."""
    started, ended = _epoch(job.started_at), _epoch(job.ended_at)
    duration = f" in {max(0.0, ended - started):.1f} s" if started is not None and ended is not None else ""
    return [(state_of(job), job.id + duration), *_result(job)]


def details(job: JobInfo) -> list[Row]:
    """Return rows for all fields of a job that are set."""
    rows = [
        ("id", job.id),
        ("type", job.type),
        ("state", state_of(job) + (f" ({job.status})" if job.status not in (job.state, state_of(job)) else "")),
        ("progress", "" if job.progress is None else f"{job.progress:g} %" + (job.message and f"  {job.message}")),
        ("worker", job.worker_id),
        ("priority", str(job.priority)),
        ("attempts", f"{job.attempt} begun, {job.retry_count} failed of {job.max_attempts} allowed"),
        ("workflow", job.workflow_id),
        ("created", job.created_at),
        ("started", job.started_at),
        ("ended", job.ended_at),
        ("not before", job.not_before),
        *_result(job),
        ("payload", _json(job.payload)),
    ]
    return [(name, value) for name, value in rows if value]


def _result(job: JobInfo) -> list[Row]:
    result = job.result or {}
    rows = [("file", _file(file)) for file in _list(result.get("output_files")) if isinstance(file, dict)]
    if data := _json(result.get("data")):
        rows.append(("data", data))
    if job.error:
        rows.append(("error", shown(job.error)))
    if job.failure_type:
        rows.append(("failure", f"{job.failure_type} / {job.failure_reason}"))
    return rows


def _file(file: dict[str, Any]) -> str:
    """Format an entry of ``output_files`` (queue protocol 5.3), written by any worker of the fleet."""
    metadata = file.get("metadata")
    url = metadata.get("cdn_url") if isinstance(metadata, dict) else None
    size = file.get("size_bytes")
    extra = [str(file["mime_type"])] if file.get("mime_type") else []
    extra += [f"{size:,} bytes"] if isinstance(size, int) else []
    return f"{url or file.get('path') or file.get('filename') or '?'}" + (f"  ({', '.join(extra)})" if extra else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _json(value: Any) -> str:
    return msgspec.json.encode(shown(value)).decode() if value else ""


def _epoch(time: str | None) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp() if time else None
    except (ValueError, OverflowError, OSError):
        return None
