"""A worker's side of one attempt, for running a connector without a worker or a queue."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import trio

from emp_trio.attempt import StageLimits, Stages
from emp_trio.errors import Stage
from emp_trio.jobs import Job, JobResult, Progress
from emp_trio.services.billing import CALLS
from emp_trio.services.connector import Connector


class FakeAttempt:
    """A :class:`~emp_trio.attempt.AttemptContext` that keeps what it is told, with real stages of time.

    Args:
        seconds: time of the whole attempt, from now.
        limits: limits of the stages.
        stop_remote_work: what the connector sees when it is cancelled: True for a user's cancel or a final deadline,
            False for a drain or a lost lease.

    Attributes:
        reports: everything reported, in order.
        checkpoint: what a next attempt would find in ``job.checkpoint``.
    """

    def __init__(
        self, seconds: float = 30.0, *, limits: StageLimits | None = None, stop_remote_work: bool = True
    ) -> None:
        self.reports: list[Progress] = []
        self.checkpoint: dict[str, Any] | None = None
        self.stop_remote_work = stop_remote_work
        self.stages = Stages(trio.current_time() + seconds, limits or StageLimits())
        self._changed = trio.Event()

    @property
    def knows_work(self) -> bool:
        """Whether a next attempt would find work to take up."""
        return bool(set(self.checkpoint or {}) - {CALLS})

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """Keep one report."""
        self.reports.append(Progress(value=value, message=message, step=step, total_steps=total_steps))
        self._wake()

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep the checkpoint."""
        await trio.lowlevel.checkpoint()
        self.checkpoint = dict(checkpoint)
        self._wake()

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """A stage inside the attempt, with its own limit."""
        return self.stages.stage(name)

    async def until_remembered(self, *, count: bool = False) -> None:
        """Wait until the connector has stored a checkpoint that knows its work.

        Args:
            count: one is enough that says how often a generation was asked for.
        """
        while not (self.knows_work or (count and self.checkpoint)):
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def run_job(connector: Connector, job: Job, context: FakeAttempt | None = None) -> JobResult:
    """Run one attempt as a worker would: within the service stage of the reporter.

    Raises:
        DeadlineExceeded: the attempt's time is up.
        Exception: whatever the connector raises.
    """
    context = context or FakeAttempt()
    with context.stages.service():
        return await connector.run(job, context)
    raise AssertionError("the service stage ended without a result and without an error")
