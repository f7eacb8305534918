"""Parse A1111's progress of running work (A1111 reference 10.3). Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.parsing import Lenient, NoObject, parse, parse_or_empty
from emp_trio.secrets import excerpt

_LONGEST: Final = 80


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One generation by its own id, as ``/internal/progress`` tells of it; what that does not say is not so.

    A generation that has failed stays active until another one begins; one that was never heard of, or is forgotten, is
    neither active nor queued nor completed.

    Attributes:
        share: from 0 to 1, or None; out of range for a moment, and null while nothing runs.
        text: tells its place in the queue; null while it is in none.
    """

    active: Lenient[bool] = False
    queued: Lenient[bool] = False
    completed: Lenient[bool] = False
    share: Lenient[float | None] = msgspec.field(name="progress", default=None)
    text: Lenient[str] = msgspec.field(name="textinfo", default="")

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "share", _share(self.share))
        msgspec.structs.force_setattr(self, "text", excerpt(" ".join(self.text.split()), _LONGEST))

    @property
    def known(self) -> bool:
        """Whether the server knows it."""
        return self.active or self.queued or self.completed


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever runs, whoever has asked for it.

    Attributes:
        busy: whether anything does.
        interrupted: whether it has been interrupted; of what ran last, where nothing runs.
        share: from 0 to 1, or None.
        began: the server's clock when it began, in its own form.
    """

    busy: bool = False
    interrupted: bool = False
    share: float | None = None
    began: str = ""


class _Work(msgspec.Struct, frozen=True):
    interrupted: Lenient[bool] = False
    job_count: Any = 0
    job_timestamp: Lenient[str] = ""


class _Progress(msgspec.Struct, frozen=True):
    progress: Lenient[float | None] = None
    state: Lenient[_Work] = _Work()


class _Part(msgspec.Struct, frozen=True):
    """``error`` is what could not be found out."""

    error: Any = None


class _Memory(msgspec.Struct, frozen=True):
    ram: _Part | NoObject
    cuda: _Part | NoObject


def read_task(answer: Any) -> Task:
    """An answer of ``/internal/progress``."""
    return parse_or_empty(Task, answer)


def read_state(answer: Any) -> State:
    """An answer of ``/sdapi/v1/progress``: nothing runs where both the progress and the count of jobs are 0."""
    said = parse_or_empty(_Progress, answer)
    return State(
        busy=bool(said.progress) or bool(said.state.job_count),
        interrupted=said.state.interrupted,
        share=_share(said.progress),
        began=said.state.job_timestamp,
    )


class Meter:
    """Progress from ``begin`` to ``end`` that never goes back: a second pass counts from 0 again."""

    def __init__(self, begin: float, end: float) -> None:
        self.value = begin
        self._begin = begin
        self._end = end

    def move(self, share: float | None) -> float:
        """The value after a look that saw ``share``."""
        if share is not None:
            self.value = max(self.value, self._begin + (self._end - self._begin) * share)
        return self.value


def trouble_in(memory: Any) -> str:
    """What is wrong with a server by its ``/sdapi/v1/memory``; empty where nothing is."""
    try:
        said = parse(_Memory, memory, "the memory")
    except ServiceError:
        return "what answers is no A1111: look at A1111_HOST and A1111_PORT"
    for name, part in (("cuda", said.cuda), ("ram", said.ram)):
        error = part.error if isinstance(part, _Part) else "nothing is known of it"
        if error:
            return f"A1111 has trouble with its {name}: {excerpt(str(error), 200)}"
    return ""


def _share(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))
