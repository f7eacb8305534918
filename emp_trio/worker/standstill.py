"""Location of an event loop that does not move: read from its stack, by another thread, on demand.

That costs nothing until it is needed, unlike counting the steps of every task.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, ContextVar
from pathlib import PurePath
from types import FrameType
from typing import Final

CONNECTOR: Final[ContextVar[str]] = ContextVar("emp_trio_connector")
"""The connector for which a task, and all tasks that it starts, works; set by slots and supervisors."""
JOB: Final[ContextVar[str]] = ContextVar("emp_trio_job")
"""The job for which a task works."""

_SHOWN: Final = 4  # innermost calls that are named


def where(frame: FrameType) -> dict[str, str]:
    """What the loop is in.

    Args:
        frame: the innermost frame of the loop's thread.

    Returns:
        ``connector`` and ``job`` where the running task works for one, and ``at``: the innermost calls.
    """
    found = {"at": " < ".join(_call(f) for f, _ in zip(_outwards(frame), range(_SHOWN), strict=False))}
    context = _context_of_running_task(frame)
    if context is not None:
        for name, variable in (("connector", CONNECTOR), ("job", JOB)):
            if (value := context.get(variable)) is not None:
                found[name] = value
    return found


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _context_of_running_task(frame: FrameType) -> Context | None:
    """Trio's run loop keeps the task that it runs in a local variable; nothing else knows it outside of its thread."""
    for outer in _outwards(frame):
        if outer.f_code.co_name == "unrolled_run":
            context = getattr(outer.f_locals.get("task"), "context", None)
            return context if isinstance(context, Context) else None
    return None


def _call(frame: FrameType) -> str:
    code = frame.f_code
    return f"{PurePath(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
