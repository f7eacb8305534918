"""Following one job: its progress as it is published, its outcome, and the state wherever messages may be missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import msgspec
import trio

from emp_trio.queue.port import GAP, Gap, Message, RedisPort

_CHANNELS = ("update_job_progress", "complete_job", "job_failed")
_LOOK_EVERY = 5.0  # seconds after which the state is read although nothing was published


class JobEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happened to a job.

    ``kind`` is ``queued``, ``progress``, and last of all ``completed``, ``failed`` or ``missing`` (no such job).
    """

    kind: Literal["queued", "progress", "completed", "failed", "missing"]
    job_id: str
    progress: float = 0.0
    message: str = ""
    worker_id: str | None = None
    error: str | None = None
    result: dict[str, Any] | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.kind in ("completed", "failed", "missing")


class _Known(Protocol):
    @property
    def state(self) -> str: ...
    @property
    def progress(self) -> float | None: ...
    @property
    def message(self) -> str: ...
    @property
    def worker_id(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def result(self) -> dict[str, Any] | None: ...


@asynccontextmanager
async def watch(
    port: RedisPort, job_id: str, look: Callable[[str], Awaitable[_Known | None]]
) -> AsyncIterator[AsyncIterator[JobEvent]]:
    """Follow a job; see :meth:`emp_trio.queue.client.Queue.watch`.

    Args:
        look: reads the state of the job.
    """
    needle = job_id.encode()

    async def events() -> AsyncIterator[JobEvent]:
        said: JobEvent | None = None
        while said is None or not said.last:
            item: Message | Gap = GAP
            with trio.move_on_after(_LOOK_EVERY):
                item = await messages.receive()
            published = None if isinstance(item, Gap) else _from_message(job_id, item[1])
            if published is None and item is not GAP:
                continue
            event = published
            if event is None or event.last:
                known = await look(job_id)
                event = JobEvent(kind="missing", job_id=job_id) if known is None else _from_state(job_id, known)
            if event != said:
                said = event
                yield event

    async with port.subscribe(*_CHANNELS, wanted=lambda _, data: needle in data) as messages:
        yield events()


def _from_state(job_id: str, known: _Known) -> JobEvent:
    kind: Literal["queued", "progress", "completed", "failed"]
    match known.state:
        case "completed" | "failed" as ended:
            kind = ended
        case "active":
            kind = "progress"
        case _:
            kind = "queued"
    return JobEvent(
        kind=kind,
        job_id=job_id,
        progress=0.0 if kind == "queued" else known.progress or 0.0,
        message=known.message,
        worker_id=known.worker_id,
        error=known.error,
        result=known.result,
    )


def _from_message(job_id: str, data: bytes) -> JobEvent | None:
    """The event in a published message, or None where it is about another job or can't be read."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(body, dict) or body.get("job_id") != job_id:
        return None
    if body.get("status") in ("completed", "failed") or "result" in body or "can_retry" in body:
        # job_failed of the fleet's workers may only announce a retry, so the state decides (queue protocol 2.5)
        ended = "failed" if "error" in body else "completed"
        return JobEvent(kind=ended, job_id=job_id)  # type: ignore[arg-type]
    progress = body.get("progress")
    return JobEvent(
        kind="progress",
        job_id=job_id,
        progress=float(progress) if isinstance(progress, int | float) else 0.0,
        message=str(body.get("message") or ""),
        worker_id=str(body.get("worker_id") or "") or None,
    )
