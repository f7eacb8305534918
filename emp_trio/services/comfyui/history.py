"""Read a prompt's state from the queue and the history (ComfyUI reference 2.2). Pure."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, parse_or_empty
from emp_trio.services.comfyui.errors import execution_failure, interrupted
from emp_trio.services.comfyui.messages import Failed, Interrupted, decode_data

QueueState: TypeAlias = Literal["running", "pending", "absent"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that has ended.

    Attributes:
        outputs: as the server lists them; after a failure, what was saved before it.
        error: what it ended with; None for a success.
        interrupted: whether that was an interrupt.
        targets: ids of the output nodes that were run; None where the server does not say.
    """

    outputs: dict[str, Any]
    targets: tuple[str, ...] | None = None
    error: ServiceError | None = None
    interrupted: bool = False


class QueueLook(msgspec.Struct, frozen=True, kw_only=True):
    """A look at the queue: ids of the running prompts, and of the pending ones, next first."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def state_of(self, prompt_id: str) -> QueueState:
        """Where a prompt is."""
        if prompt_id in self.running:
            return "running"
        return "pending" if prompt_id in self.pending else "absent"

    def before(self, prompt_id: str) -> int:
        """How many prompts come before a pending one."""
        return len(self.running) + self.pending.index(prompt_id)


class _Message(msgspec.Struct, frozen=True, array_like=True):
    type: str
    data: Any = None


class _Status(msgspec.Struct, frozen=True):
    status_str: Lenient[str] = ""
    messages: Lenient[list[Lenient[_Message]]] = []


class _Prompt(msgspec.Struct, frozen=True, array_like=True):
    """The five elements that a prompt always has; the last is cut off by some servers (1)."""

    number: Any = None
    prompt_id: Any = None
    graph: Any = None
    extra_data: Any = None
    outputs: list[Any] | None = None


class _Entry(msgspec.Struct, frozen=True):
    """An entry of a history; servers of others leave each of these out, or null."""

    outputs: Lenient[dict[str, Any]] = {}
    status: Lenient[_Status] = _Status()
    prompt: Lenient[_Prompt] = _Prompt()


class _Queued(msgspec.Struct, frozen=True, array_like=True):
    """A prompt in the queue, whose graph and the rest follow; the least number is the next."""

    number: Any
    prompt_id: str

    @property
    def order(self) -> tuple[float, str]:
        """By number, then by id."""
        return (self.number if isinstance(self.number, int | float) else 0), self.prompt_id


class _Queue(msgspec.Struct, frozen=True):
    queue_running: Lenient[list[Lenient[_Queued]]] = []
    queue_pending: Lenient[list[Lenient[_Queued]]] = []


class _Job(msgspec.Struct, frozen=True):
    id: str
    status: Lenient[str] = ""
    priority: Any = None


class _Pagination(msgspec.Struct, frozen=True):
    has_more: Lenient[bool] = False


class _Jobs(msgspec.Struct, frozen=True):
    jobs: Lenient[list[Lenient[_Job]] | None] = None
    pagination: Lenient[_Pagination] = _Pagination()


def read_entry(answer: Any, prompt_id: str) -> Entry | None:
    """The entry in an answer of ``GET /history/{prompt_id}``; None while there is none.

    An interrupted prompt says ``error`` as a failed one does: only its last message tells. Errors of blocked branches
    stand in the entries of successes too (3.1).
    """
    entry = parse_or_empty(dict[str, Lenient[_Entry]], answer).get(prompt_id)
    if entry is None:
        return None
    if entry.status.status_str != "error":
        targets = entry.prompt.outputs
        listed = None if targets is None else tuple(item for item in targets if isinstance(item, str))
        return Entry(outputs=entry.outputs, targets=listed)
    last: Failed | Interrupted | None = None
    for message in entry.status.messages:
        if isinstance(event := decode_data(message.type, message.data), Failed | Interrupted):
            last = event
    if isinstance(last, Interrupted):
        return Entry(outputs=entry.outputs, error=interrupted(), interrupted=True)
    return Entry(outputs=entry.outputs, error=execution_failure(last or Failed(prompt_id=prompt_id)))


def read_queue(answer: Any) -> QueueLook:
    """An answer of ``GET /queue``. Pending prompts come in no order: they are sorted by number, then id."""
    found = parse_or_empty(_Queue, answer)
    return QueueLook(
        running=tuple(queued.prompt_id for queued in found.queue_running),
        pending=tuple(prompt_id for _, prompt_id in sorted(queued.order for queued in found.queue_pending)),
    )


def read_jobs(answer: Any) -> QueueLook | None:
    """An answer of ``GET /api/jobs`` as a look at the queue; None where it is no whole list of jobs."""
    found = parse_or_empty(_Jobs, answer)
    if found.jobs is None or found.pagination.has_more:
        return None
    waiting = [_Queued(number=job.priority, prompt_id=job.id) for job in found.jobs if job.status == "pending"]
    return QueueLook(
        running=tuple(job.id for job in found.jobs if job.status == "in_progress"),
        pending=tuple(prompt_id for _, prompt_id in sorted(queued.order for queued in waiting)),
    )


def read_newest(answer: Any) -> str:
    """Id of the newest prompt in an answer of ``GET /history``; empty where there is none."""
    return next((str(prompt_id) for prompt_id in reversed(answer)), "") if isinstance(answer, dict) else ""
