"""What a connector is handed beside the job: a reporter of progress that also holds the attempt's stages of time.

One absolute deadline per attempt. Each stage gets ``min(own limit, deadline - reserve of the later stages)``; the
service stage stands still while an asset is being uploaded or waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import msgspec
import trio

from emp_trio.errors import DeadlineExceeded, Stage

Ending = Literal["cancelled", "lease_lost", "drain"]
"""Why an attempt is being stopped from outside; None while it is not (a passed deadline is not an ending)."""


class StageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds each stage may take; the service stage has what the attempt's deadline leaves of it."""

    upload: float = 120.0
    cdn: float = 60.0
    settle: float = 10.0

    def reserve_after(self, stage: Stage) -> float:
        """Seconds kept back for the stages that come after ``stage``."""
        match stage:  # no table: every job asks
            case "claim" | "service":
                return self.upload + self.cdn + self.settle
            case "upload":
                return self.cdn + self.settle
            case "cdn":
                return self.settle
            case "settle":
                return 0.0


def stage_deadline(stage: Stage, *, now: float, attempt_deadline: float, limits: StageLimits) -> float:
    """Absolute time at which ``stage`` must end. Pure.

    Where the attempt is shorter than the reserves, they shrink to half of what is left: every stage gets a chance.
    """
    left = max(0.0, attempt_deadline - now)
    end = attempt_deadline - min(limits.reserve_after(stage), left / 2)
    if stage == "claim" or stage == "service":
        return end
    own = limits.upload if stage == "upload" else limits.cdn if stage == "cdn" else limits.settle
    return min(end, now + own)


class AttemptContext(Protocol):
    """The connector's line to the worker, good for one attempt."""

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """Say how far the job is (0 to 100). Never blocks; reports are coalesced and never go backwards."""

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Store with the lease what a next attempt needs to adopt the upstream work (small, no secrets)."""

    def stage(self, name: Stage) -> Any:
        """Context manager for a stage; raises DeadlineExceeded(name) when its time is up."""

    @property
    def stop_remote_work(self) -> bool:
        """Whether cleanup after a cancel should stop the work upstream (user's cancel, final deadline) or leave it
        running for the next attempt to adopt (drain, lost lease)."""


class Stages:
    """The time of one attempt: the service stage's cancel scope, and stages inside it.

    Args:
        attempt_deadline: absolute Trio time at which the attempt must be over.
        limits: the limits of the stages.

    Attributes:
        on_end: called with the name of each stage that is over and its seconds; those of the service stage are without
            the stages inside it. None: nobody wants to know.
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
        """Whether a stage that is still open has reached its end."""
        return any(trio.current_time() >= scope.deadline for scope in self._open)

    def service(self) -> _ServiceStage:
        """The service stage. Raises DeadlineExceeded("service") when its time is up.

        A cancel of the scope that ``with`` gives ends the block quietly: who cancels it knows why.
        """
        return _ServiceStage(self)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """A stage inside the service stage, whose clock stands still meanwhile. Raises DeadlineExceeded(name)."""
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
    """A class and no generator: every job goes through it, and this takes a third of the time."""

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
