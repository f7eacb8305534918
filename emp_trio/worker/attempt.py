"""One attempt while it runs: its lease, its stages of time, its progress, and why it is being ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

import msgspec
import trio

from emp_trio.attempt import Ending, StageLimits, Stages
from emp_trio.errors import InvalidJob, Stage
from emp_trio.jobs import Job
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.secrets import Redactor
from emp_trio.worker.circuit import Verdict

_LONGEST_TEXT: Final = 500  # characters of a progress message
_BIGGEST_CHECKPOINT: Final = 16 * 1024  # bytes
_Said: TypeAlias = tuple[float, str, str, int]  # percent, message, step, total steps


class Attempt:
    """Implements :class:`~emp_trio.attempt.AttemptContext` for the connector, and is what the machine holds of it.

    Args:
        job: the job.
        lease: job id and lease token.
        worker_id: the slot.
        expires: Trio time at which the lease ends unless it is renewed.
        margin: seconds before that at which the local work must stop.
        deadline: Trio time at which the attempt must be over.
        limits: limits of the stages.
        cleanup: seconds the connector has for its cleanup after it was told to stop.
        changed: called when there is progress to publish.
        store: stores a checkpoint with the lease.
        redactor: takes secrets out of what is published.

    Attributes:
        running: whether the connector is in it now.
        ending: why the attempt was stopped from outside, or None.
        stop_at: Trio time at which the local work must stop, unless the lease is renewed. No scope has it as its
            deadline: whoever asks how much time is left would take it for the end of the attempt.
        verdict: what its end says about the service.
        silent: whether nothing is to be published of it yet.
    """

    def __init__(
        self,
        job: Job,
        lease: LeaseRef,
        worker_id: str,
        *,
        expires: float,
        margin: float,
        deadline: float,
        limits: StageLimits,
        cleanup: float,
        changed: Callable[[], None],
        store: Callable[[LeaseRef, bytes], Awaitable[None]],
        redactor: Redactor,
    ) -> None:
        self.job = job
        self.lease = lease
        self.worker_id = worker_id
        self.stages = Stages(deadline, limits)
        self._scope: trio.CancelScope | None = None
        self.stop_at = expires - margin
        self.running = False
        self.ending: Ending | None = None
        self.verdict: Verdict = "neutral"
        self.silent = False
        self._margin = margin
        self._cleanup = cleanup
        self._over_by = deadline + cleanup
        self._changed = changed
        self._store = store
        self._redactor = redactor
        self._value = 0.0
        self._unsaid: _Said | None = None
        self._said: _Said | None = None

    # -- for the connector

    def report(self, value: float, message: str = "", *, step: str = "", total_steps: int = 0) -> None:
        """See :meth:`emp_trio.attempt.AttemptContext.report`. 100 is kept for the outcome."""
        if value == value:  # not NaN
            self._value = max(self._value, min(99.0, float(value)))
        self._unsaid = (self._value, self._shown(message), self._shown(step), int(total_steps))
        self._changed()

    async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """See :meth:`emp_trio.attempt.AttemptContext.save_checkpoint`. Raises InvalidJob when it is not small."""
        encoded = msgspec.json.encode(checkpoint)
        if len(encoded) > _BIGGEST_CHECKPOINT:
            raise InvalidJob(f"a checkpoint of {len(encoded)} bytes is larger than {_BIGGEST_CHECKPOINT}")
        await self._store(self.lease, encoded)

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

    # -- for the machine

    def take_progress(self) -> tuple[LeaseRef, float, str, str, int] | None:
        """What has not been published yet, or None; asked for once."""
        if self.silent or self._unsaid is None:
            return None
        self._said, self._unsaid = self._unsaid, None
        if self.ending is not None:
            return None
        value, message, step, total_steps = self._said
        return self.lease, value, message, step, total_steps

    def not_published(self) -> None:
        """What was taken last did not reach Redis: it is to be said again, unless there is something newer."""
        if self._unsaid is None:
            self._unsaid = self._said

    def speak(self) -> None:
        """It may be published what the attempt reports."""
        self.silent = False
        if self._unsaid is not None:
            self._changed()

    @property
    def last_words(self) -> tuple[str, str, int]:
        """Message, step and number of steps of the last report, without secrets."""
        said = self._unsaid or self._said
        if said is None:
            return "", "", 0
        return said[1], said[2], said[3]

    def enter(self, scope: trio.CancelScope) -> None:
        """The connector runs in ``scope`` from now on."""
        self._scope = scope
        if self.ending is not None:
            scope.cancel(reason=self.ending)

    def renewed(self, expires: float) -> None:
        """The lease now ends at ``expires``."""
        self.stop_at = max(self.stop_at, expires - self._margin)

    def end(self, why: Ending) -> None:
        """Stop the attempt from outside. The first reason counts."""
        if self.ending is None:
            self.ending = why
            self._over_by = min(self._over_by, trio.current_time() + self._cleanup)
            if self._scope is not None:
                self._scope.cancel(reason=why)

    @property
    def stuck(self) -> bool:
        """Whether the connector goes on although it was told to stop, and has had its time for cleanup."""
        return self.running and trio.current_time() > self._over_by

    def _shown(self, text: str) -> str:
        """Text of a bounded length, without secrets, that can be written as UTF-8."""
        if text == "":
            return ""
        text = self._redactor.excerpt(str(text), _LONGEST_TEXT)
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
