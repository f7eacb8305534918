"""Locate a blocked event loop from its stack, in another thread, on demand.

Unlike counting the steps of every task, this has no cost until it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, ContextVar
from pathlib import PurePath
from types import FrameType
from typing import Final

CONNECTOR: Final[ContextVar[str]] = ContextVar("emp_trio_connector")
"""Connector of a task and its child tasks; set by slots and supervisors."""
JOB: Final[ContextVar[str]] = ContextVar("emp_trio_job")
"""Job of a task and its child tasks."""

_SHOWN: Final = 4  # innermost calls shown


def where(frame: FrameType) -> dict[str, str]:
    """Describe the current position of the loop.

    Args:
        frame: the innermost frame of the loop's thread.

    Returns:
        ``connector`` and ``job`` of the running task, if any, and ``at``: the innermost calls.
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
    """Return the context of the running task, from a local variable of Trio's run loop: no API has it for other
    threads."""
    for outer in _outwards(frame):
        if outer.f_code.co_name == "unrolled_run":
            context = getattr(outer.f_locals.get("task"), "context", None)
            return context if isinstance(context, Context) else None
    return None


def _call(frame: FrameType) -> str:
    code = frame.f_code
    return f"{PurePath(code.co_filename).name}:{frame.f_lineno} {code.co_name}"
