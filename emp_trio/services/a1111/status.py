"""What A1111 says of work under way (A1111 reference 10.3). Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from emp_trio.secrets import excerpt

_LONGEST: Final = 80


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One generation by its own id. ``share`` is from 0 to 1, or None; ``text`` tells its place in the queue.

    A generation that has failed stays active until another one begins; one that was never heard of, or is forgotten, is
    neither active nor queued nor completed.
    """

    active: bool = False
    queued: bool = False
    completed: bool = False
    share: float | None = None
    text: str = ""

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


def read_task(answer: Any) -> Task:
    """An answer of ``/internal/progress``; what it does not say is not so."""
    said = answer if isinstance(answer, dict) else {}
    text = said.get("textinfo")
    return Task(
        active=said.get("active") is True,
        queued=said.get("queued") is True,
        completed=said.get("completed") is True,
        share=_share(said.get("progress")),
        text=excerpt(" ".join(text.split()), _LONGEST) if isinstance(text, str) else "",
    )


def read_state(answer: Any) -> State:
    """An answer of ``/sdapi/v1/progress``: nothing runs where both the progress and the count of jobs are 0."""
    said = answer if isinstance(answer, dict) else {}
    state = said.get("state")
    state = state if isinstance(state, dict) else {}
    began = state.get("job_timestamp")
    return State(
        busy=bool(said.get("progress")) or bool(state.get("job_count")),
        interrupted=state.get("interrupted") is True,
        share=_share(said.get("progress")),
        began=began if isinstance(began, str) else "",
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
    if not isinstance(memory, dict) or not {"ram", "cuda"} <= memory.keys():
        return "what answers is no A1111: look at A1111_HOST and A1111_PORT"
    for name in ("cuda", "ram"):
        part = memory[name]
        error = part.get("error") if isinstance(part, dict) else "nothing is known of it"
        if error:
            return f"A1111 has trouble with its {name}: {excerpt(str(error), 200)}"
    return ""


def _share(value: Any) -> float | None:
    """A share of the work from what is told, which may be out of range for a moment."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return min(1.0, max(0.0, float(value)))
