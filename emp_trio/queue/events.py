"""Following one job: its progress as it is published, its outcome, and the state wherever messages may be missing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import msgspec
import trio

from emp_trio.queue.port import Gap, Message, RedisPort

_CHANNELS = ("update_job_progress", "complete_job", "job_failed")
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")
_LARGEST = 2**53  # what a float holds exactly
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
    # JSON may write other characters in several ways: then each message is read
    needle = job_id.encode() if _PLAIN.fullmatch(job_id) else b""
    async with port.subscribe(*_CHANNELS, wanted=lambda _, data: needle in data) as messages:
        yield _Events(job_id, messages, look)


class _Events:
    """The events of one job. No generator: that would be over after a cancelled wait for the next event."""

    def __init__(
        self,
        job_id: str,
        messages: trio.MemoryReceiveChannel[Message | Gap],
        look: Callable[[str], Awaitable[_Known | None]],
    ) -> None:
        self._job_id = job_id
        self._messages = messages
        self._look = look
        self._said: JobEvent | None = None
        self._must_look = False

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> JobEvent:
        while self._said is None or not self._said.last:
            event = None if self._must_look else await self._published()
            if event is None or event.last or event.progress >= 100:  # 100 % is said in the moment of the outcome
                self._must_look = True  # until it has been done: a cancel may come first
                known = await self._look(self._job_id)
                event = (
                    JobEvent(kind="missing", job_id=self._job_id) if known is None else _from_state(self._job_id, known)
                )
                self._must_look = False
            if event != self._said:
                self._said = event
                return event
        raise StopAsyncIteration

    async def _published(self) -> JobEvent | None:
        """The next message about the job, or None where the state must be looked at."""
        with trio.move_on_after(_LOOK_EVERY):
            while not isinstance(item := await self._messages.receive(), Gap):
                if (event := _from_message(self._job_id, item[1])) is not None:
                    return event
        return None


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
        progress=_percent(progress),
        message=str(body.get("message") or ""),
        worker_id=str(body.get("worker_id") or "") or None,
    )


def _percent(value: Any) -> float:
    """A percentage as anybody may have written it; 0 where it is none."""
    return float(value) if isinstance(value, int | float) and abs(value) <= _LARGEST else 0.0
