"""AttemptContext, a connector's interface to the worker during an attempt, and the time limits of its stages.

An attempt has one absolute deadline. A stage gets ``min(own limit, deadline - reserve of the later stages)``. The clock
of the service stage is paused during the upload and cdn stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import msgspec
import trio

from emp_trio.errors import DeadlineExceeded, Stage

Ending = Literal["cancelled", "lease_lost", "drain"]
"""Reason for stopping an attempt from outside; None while it runs. An expired deadline is not a reason."""


class StageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum seconds per stage; the service stage is limited only by the deadline of the attempt."""

    upload: float = 120.0
    cdn: float = 60.0
    settle: float = 10.0

    def reserve_after(self, stage: Stage) -> float:
        """Return the seconds reserved for the stages after ``stage``."""
        match stage:  # faster than a table; runs for every job
            case "claim" | "service":
                return self.upload + self.cdn + self.settle
            case "upload":
                return self.cdn + self.settle
            case "cdn":
                return self.settle
            case "settle":
                return 0.0


def stage_deadline(stage: Stage, *, now: float, attempt_deadline: float, limits: StageLimits) -> float:
    """Return the absolute time at which ``stage`` must end. Pure.

    If less time is left than the reserves need, they shrink to half of it, so that every stage gets some.
    """
    left = max(0.0, attempt_deadline - now)
    end = attempt_deadline - min(limits.reserve_after(stage), left / 2)
    if stage == "claim" or stage == "service":
        return end
    own = limits.upload if stage == "upload" else limits.cdn if stage == "cdn" else limits.settle
    return min(end, now + own)


class AttemptContext(Protocol):
    """A connector's interface to the worker during one attempt."""

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """Report progress in percent (0 to 100). Never blocks; reports are coalesced, and lower values are ignored."""

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Store the data that the next attempt needs to resume the remote work (small, without secrets)."""

    def stage(self, name: Stage) -> Any:
        """Return a context manager for a stage. It raises DeadlineExceeded(name) when the stage's time is up."""

    @property
    def stop_remote_work(self) -> bool:
        """Return whether cleanup after a cancellation must stop the remote work.

        True after a user's cancel or the final deadline; false after a shutdown or a lost lease: the next attempt
        resumes the work.
        """


class Stages:
    """Time limits of one attempt: the cancel scope of the service stage, and nested stages.

    Args:
        attempt_deadline: absolute Trio time at which the attempt must end.
        limits: maximum seconds per stage.

    Attributes:
        on_end: called with the name and the duration in seconds of each ended stage, or None. The duration of the
            service stage excludes nested stages.
    """

    def __init__(self, attempt_deadline: float, limits: StageLimits) -> None:
        self.attempt_deadline = attempt_deadline
        self.limits = limits
        self.on_end: Callable[[Stage, float], None] | None = None
        self._service: trio.CancelScope | None = None
        self._inside = 0
        self._inside_since = 0.0
        self._inside_seconds = 0.0
        self._open: list[trio.CancelScope] = []

    @property
    def out_of_time(self) -> bool:
        """Return whether the deadline of an open stage has passed."""
        return any(trio.current_time() >= scope.deadline for scope in self._open)

    def service(self) -> _ServiceStage:
        """Return the context manager of the service stage. It raises DeadlineExceeded("service") when its time is up.

        ``with`` returns its cancel scope; cancelling that scope ends the block without an error.
        """
        return _ServiceStage(self)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Run a nested stage and pause the clock of the service stage. Raises DeadlineExceeded(name)."""
        started = trio.current_time()
        deadline = self._end(name, started)
        if not self._inside:
            self._inside_since = started
        self._inside += 1
        if self._service is not None:
            self._service.deadline = self.attempt_deadline
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                self._open.append(scope)
                try:
                    yield
                finally:
                    self._open.remove(scope)
        finally:
            now = trio.current_time()
            self._inside -= 1
            if not self._inside:
                self._inside_seconds += now - self._inside_since
                if self._service is not None:
                    self._service.deadline = max(self._end("service", now), now)
            if self.on_end is not None:
                self.on_end(name, now - started)
        if scope.cancelled_caught:
            raise DeadlineExceeded(name, deadline - started)

    def _end(self, name: Stage, now: float) -> float:
        return stage_deadline(name, now=now, attempt_deadline=self.attempt_deadline, limits=self.limits)


class _ServiceStage:
    """A class rather than a generator, because every job uses it and this takes a third of the time."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._started = trio.current_time()
        self._scope = trio.CancelScope(deadline=stages._end("service", self._started))

    def __enter__(self) -> trio.CancelScope:
        self._stages._service = self._scope
        self._stages._open.append(self._scope)
        return self._scope.__enter__()

    def __exit__(self, *error: Any) -> bool:
        self._stages._service = None
        self._stages._open.remove(self._scope)
        caught = bool(self._scope.__exit__(*error))
        if self._stages.on_end is not None:
            seconds = trio.current_time() - self._started - self._stages._inside_seconds
            self._stages.on_end("service", seconds)
        if caught and trio.current_time() >= self._scope.deadline:
            raise DeadlineExceeded("service", self._scope.deadline - self._started)
        return caught
