"""The two sources that decide about a prompt: its place in the queue, and its entry in the history
(ComfyUI reference 2.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.errors import execution_failure, interrupted
from emp_trio.services.comfyui.messages import Event, Failed, Interrupted, decode_data

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


def read_entry(answer: Any, prompt_id: str) -> Entry | None:
    """The entry in an answer of ``GET /history/{prompt_id}``; None while there is none.

    An interrupted prompt says ``error`` as a failed one does: only its last message tells. Errors of blocked branches
    stand in the entries of successes too (3.1).
    """
    entry = answer.get(prompt_id) if isinstance(answer, dict) else None
    if not isinstance(entry, dict):
        return None
    outputs, status = entry.get("outputs"), entry.get("status")
    outputs = outputs if isinstance(outputs, dict) else {}
    if not isinstance(status, dict) or status.get("status_str") != "error":
        return Entry(outputs=outputs, targets=_targets(entry.get("prompt")))
    last: Failed | Interrupted | None = None
    for event in _events(status.get("messages")):
        if isinstance(event, Failed | Interrupted):
            last = event
    if isinstance(last, Interrupted):
        return Entry(outputs=outputs, error=interrupted(), interrupted=True)
    unnamed = Failed(prompt_id=prompt_id, node_id="", node_type="", exception_type="", exception_message="")
    return Entry(outputs=outputs, error=execution_failure(last or unnamed))


def read_queue(answer: Any) -> QueueLook:
    """An answer of ``GET /queue``. Pending prompts come in no order: they are sorted by number, then id."""
    found = answer if isinstance(answer, dict) else {}
    return QueueLook(
        running=tuple(prompt_id for _, prompt_id in _items(found.get("queue_running"))),
        pending=tuple(prompt_id for _, prompt_id in sorted(_items(found.get("queue_pending")))),
    )


def read_jobs(answer: Any) -> QueueLook | None:
    """An answer of ``GET /api/jobs`` as a look at the queue; None where it is no whole list of jobs."""
    listed = answer.get("jobs") if isinstance(answer, dict) else None
    more = answer.get("pagination") if isinstance(answer, dict) else None
    if not isinstance(listed, list) or (isinstance(more, dict) and more.get("has_more") is True):
        return None
    jobs = [job for job in listed if isinstance(job, dict) and isinstance(job.get("id"), str)]
    numbered = [[job.get("priority"), job["id"]] for job in jobs if job.get("status") == "pending"]
    return QueueLook(
        running=tuple(job["id"] for job in jobs if job.get("status") == "in_progress"),
        pending=tuple(prompt_id for _, prompt_id in sorted(_items(numbered))),
    )


def read_newest(answer: Any) -> str:
    """Id of the newest prompt in an answer of ``GET /history``; empty where there is none."""
    return next((str(prompt_id) for prompt_id in reversed(answer)), "") if isinstance(answer, dict) else ""


def _targets(prompt: Any) -> tuple[str, ...] | None:
    """The last of the five elements that a prompt always has; later ones may be cut off (1)."""
    listed = prompt[4] if isinstance(prompt, list) and len(prompt) > 4 else None
    return tuple(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else None


def _items(listed: Any) -> Iterator[tuple[float, str]]:
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, list) and len(item) > 1 and isinstance(item[1], str):
            yield (item[0] if isinstance(item[0], int | float) else 0), item[1]


def _events(messages: Any) -> Iterator[Event]:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[0], str):
            yield decode_data(message[0], message[1])
