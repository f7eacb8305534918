"""A running attempt: lease, stages, progress, and the reason for stopping it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import trio

from emp_trio.attempt import Ending, StageLimits, Stages
from emp_trio.errors import InvalidJob, Stage
from emp_trio.jobs import Job
from emp_trio.nursery import without_cancelled
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector
from emp_trio.worker.outcome import AttemptEnd

_LONGEST_TEXT: Final = 500  # maximum characters of a progress message
_BIGGEST_CHECKPOINT: Final = 16 * 1024  # bytes
_Report: TypeAlias = tuple[float, str, str, int]  # percent, message, step, total steps


class AttemptTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits of an attempt.

    Attributes:
        expires: Trio time at which the lease expires unless renewed.
        margin: seconds before ``expires`` at which local work must stop.
        deadline: Trio time at which the attempt must end.
        limits: maximum seconds per stage.
        cleanup: seconds for the connector's cleanup after it was cancelled.
    """

    expires: float
    margin: float
    deadline: float
    limits: StageLimits
    cleanup: float


class AttemptHost(Protocol):
    """Publisher of progress and checkpoints, implemented by :class:`~emp_trio.worker.leases.Leases`."""

    def has_progress(self) -> None:
        """Announce progress to publish."""

    async def save_checkpoint(self, lease: LeaseRef, checkpoint: bytes) -> None:
        """Store a checkpoint with the lease."""


class Attempt:
    """Implements :class:`~emp_trio.attempt.AttemptContext` for the connector; the machine controls the attempt by it.

    Args:
        job: the job.
        lease: job id and lease token.
        worker_id: id of the slot.
        times: time limits.
        host: publishes progress and checkpoints.
        redactor: masks secrets in published text.

    Attributes:
        running: whether the connector is running.
        ending: reason for stopping from outside, or None.
        stop_at: Trio time at which local work must stop unless the lease is renewed. Not a deadline of a cancel scope,
            because connectors read the effective deadline as the end of the attempt.
        muted: whether publishing is held back.
    """

    def __init__(
        self, job: Job, lease: LeaseRef, worker_id: str, times: AttemptTimes, host: AttemptHost, redactor: Redactor
    ) -> None:
        self.job = job
        self.lease = lease
        self.worker_id = worker_id
        self.stages = Stages(times.deadline, times.limits)
        self.stop_at = times.expires - times.margin
        self.running = False
        self.ending: Ending | None = None
        self.muted = False
        self._scope: trio.CancelScope | None = None
        self._margin = times.margin
        self._cleanup = times.cleanup
        self._over_by = times.deadline + times.cleanup
        self._host = host
        self._redactor = redactor
        self._value = 0.0
        self._unpublished: _Report | None = None
        self._taken: _Report | None = None

    async def run(self, connector: Connector) -> AttemptEnd:
        """Run the connector in its own nursery until it ends or the attempt is stopped from outside.

        Raises:
            trio.Cancelled: the machine is being cancelled.
        """
        began = trio.current_time()
        returned: object = None
        raised: BaseException | None = None
        completed = False
        self.running = True
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                if self.ending is not None:
                    nursery.cancel_scope.cancel(reason=self.ending)
                try:
                    with self.stages.service():
                        returned = await connector.run(self.job, self)
                        completed = True
                except BaseException as error:  # noqa: BLE001 - any error of a connector fails its job
                    raised = without_cancelled(error)
                    await trio.lowlevel.checkpoint_if_cancelled()  # re-raise cancellations
        finally:
            self.running = False
        return AttemptEnd(
            completed=completed,
            returned=returned,
            raised=raised,
            ending=self.ending,
            seconds=trio.current_time() - began,
            last_progress=self.last_progress,
        )

    # -- called by the connector

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """See :meth:`emp_trio.attempt.AttemptContext.report`. 100 is reserved for the outcome."""
        if value == value:  # not NaN
            self._value = max(self._value, min(99.0, float(value)))
        self._unpublished = (self._value, self._shown(message), self._shown(step), int(total_steps))
        self._host.has_progress()

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """See :meth:`emp_trio.attempt.AttemptContext.save_checkpoint`. Raises InvalidJob if it is too large."""
        encoded = msgspec.json.encode(checkpoint)
        if len(encoded) > _BIGGEST_CHECKPOINT:
            raise InvalidJob(f"a checkpoint of {len(encoded)} bytes is larger than {_BIGGEST_CHECKPOINT}")
        await self._host.save_checkpoint(self.lease, encoded)

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """See :meth:`emp_trio.attempt.AttemptContext.stage`."""
        return self.stages.stage(name)

    @property
    def stop_remote_work(self) -> bool:
        """See :attr:`emp_trio.attempt.AttemptContext.stop_remote_work`."""
        if self.ending is not None:
            return self.ending == "cancelled"
        useless = self.job.deadline is not None and time.time() >= self.job.deadline
        return self.stages.out_of_time and (self.job.last_attempt or useless)

    # -- called by the machine

    def take_progress(self) -> tuple[LeaseRef, float, str, str, int] | None:
        """Return the unpublished progress once, or None."""
        if self.muted or self._unpublished is None:
            return None
        self._taken, self._unpublished = self._unpublished, None
        if self.ending is not None:
            return None
        value, message, step, total_steps = self._taken
        return self.lease, value, message, step, total_steps

    def not_published(self) -> None:
        """Restore the progress taken last, because it did not reach Redis, unless there is a newer report."""
        if self._unpublished is None:
            self._unpublished = self._taken

    def unmute(self) -> None:
        """Allow publishing."""
        self.muted = False
        if self._unpublished is not None:
            self._host.has_progress()

    @property
    def last_progress(self) -> tuple[str, str, int]:
        """Return message, step and number of steps of the last report, redacted."""
        report = self._unpublished or self._taken
        return ("", "", 0) if report is None else report[1:]

    def renewed(self, expires: float) -> None:
        """Set the new expiry of the lease (Trio time)."""
        self.stop_at = max(self.stop_at, expires - self._margin)

    def end(self, why: Ending) -> None:
        """Stop the attempt from outside. The first reason is kept."""
        if self.ending is None:
            self.ending = why
            self._over_by = min(self._over_by, trio.current_time() + self._cleanup)
            if self._scope is not None:
                self._scope.cancel(reason=why)

    @property
    def stuck(self) -> bool:
        """Return whether the connector is still running after its cancellation and cleanup time."""
        return self.running and trio.current_time() > self._over_by

    def _shown(self, text: str) -> str:
        """Redact and shorten a text, and make it valid UTF-8."""
        if text == "":
            return ""
        text = self._redactor.excerpt(str(text), _LONGEST_TEXT)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
