"""An interaction in the background: created once, polled, adopted after a crash, cancelled (Gemini reference A7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import quote

import structlog
import trio

from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.progress import ProgressReporter
from emp_trio.protocols.http_call import Sending
from emp_trio.services.gemini.answers import Answer, read_interaction
from emp_trio.services.gemini.api import Caller
from emp_trio.services.gemini.errors import interactions_unavailable
from emp_trio.services.gemini.settings import GeminiSettings
from emp_trio.services.repeats import counted
from emp_trio.services.upstream import run_upstream

log = structlog.get_logger(__name__)

_LONGEST_ID: Final = 512  # characters; it becomes part of a path, and of the checkpoint

KEY = "interaction_id"
"""Name of the id in a checkpoint."""


class PollingCaller(Caller, Protocol):
    """What is needed of a connector: ``GeminiApi``, ``Http`` and ``Polling``."""

    @property
    def poll(self) -> Callable[..., Awaitable[Any]]:
        """:meth:`emp_trio.protocols.polling.Polling.poll`."""


async def run_interaction(
    caller: PollingCaller, job: Job, progress: ProgressReporter, body: Callable[[], Awaitable[dict[str, Any]]]
) -> Answer | None:
    """Run a request as an interaction in the background, or adopt the one that an earlier attempt has started.

    Args:
        body: makes the body of the request; not called where there is something to adopt.

    Returns:
        the answer; None where this server has no interactions, and nothing was started.

    Raises:
        Refused: Gemini declined.
        ServiceError: it failed, or was not done within ``poll_timeout``.
        trio.Cancelled: after the interaction was cancelled upstream, where ``progress.stop_upstream`` says so.
    """
    run = _Run(caller, job, progress, body)
    if not isinstance((job.checkpoint or {}).get(KEY), str):
        await run.prepare()  # as long as that takes: a cancel cuts ``start`` short
    try:
        return await run_upstream(
            job,
            progress,
            key=KEY,
            usable=run.usable,
            start=run.start,
            wait=run.wait,
            cancel=run.cancel,
            grace=run.gemini.cleanup_timeout,
        )
    except ServiceError as error:
        if error is not run.not_started:
            raise
        log.warning("interactions.unavailable", error=error.message)
        return None


class _Run:
    """The calls of one attempt."""

    def __init__(
        self,
        caller: PollingCaller,
        job: Job,
        progress: ProgressReporter,
        body: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self.caller = caller
        self.job = job
        self.progress = progress
        self.not_started: ServiceError | None = None
        self.gemini: GeminiSettings = caller.settings.gemini
        self._make_body = body
        self._body: dict[str, Any] | None = None
        self._path = f"{caller.address.root}/interactions"

    async def prepare(self) -> dict[str, Any]:
        if self._body is None:
            self._body = await self._make_body()
        return self._body

    async def start(self) -> str:
        body = await self.prepare()
        self.progress.report(5, "sending the request to Gemini")
        async with counted(self.job, self.progress, ahead=True) as sending:
            return await self._create(body, sending)

    async def _create(self, body: dict[str, Any], sending: Sending) -> str:
        try:
            answer = await self.caller.request(
                "POST", self._path, json=body, timeout=self.gemini.create_timeout, sending=sending
            )
        except ServiceError as error:
            if interactions_unavailable(error):
                self.not_started = error
            raise
        interaction = answer.json()
        found = interaction.get("id") if isinstance(interaction, dict) else None
        if not isinstance(found, str) or not found.strip(".") or len(found) > _LONGEST_ID:
            raise ServiceError(
                "Gemini took the request without giving the interaction an id that can be used",
                type="response_error",
                reason="missing_expected_data",
                maybe_started=True,
            )
        log.info("interaction.created", interaction=found)
        return found

    async def usable(self, interaction_id: str) -> bool:
        """Whether an earlier interaction is under way, done, or finally refused; a failed one is not."""
        try:
            interaction = await self._retrieve(interaction_id)
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        try:
            read_interaction(interaction)
        except ServiceError as error:
            return not error.retry and error.code != "cancelled"
        return True

    async def wait(self, interaction_id: str) -> Answer:
        """Look at the interaction until it is finished; one that takes too long is cancelled."""
        began = trio.current_time()
        attempts = self.caller.settings.polling.attempts
        looks = 0

        async def look() -> Answer | ServiceError | float | None:
            nonlocal looks
            looks += 1
            try:
                interaction = await self._retrieve(interaction_id, retries=0)
            except ServiceError as error:
                if error.status == 404:  # expired or deleted: nothing about the request is invalid
                    error.type, error.reason = "response_error", "missing_expected_data"
                raise
            try:
                answer = read_interaction(interaction)
            except ServiceError as error:  # it has ended so: no other look will find it otherwise
                return error
            if answer is None:
                elapsed = trio.current_time() - began
                status = str(interaction.get("status"))[:40]
                self.progress.report(percent(elapsed), f"Gemini: {status} for {elapsed:.0f} s")
                return elapsed if looks >= attempts else None
            return answer

        limit = self.gemini.poll_timeout
        with trio.move_on_after(limit):
            found: Answer | ServiceError | float = await self.caller.poll(look, hint=f"interaction {interaction_id}")
            if isinstance(found, ServiceError):
                raise found
            if isinstance(found, Answer):
                return found
            limit = found
        return await self._last_look(interaction_id, limit)

    async def cancel(self, interaction_id: str) -> None:
        await self.caller.request(
            "POST",
            f"{self._at(interaction_id)}/cancel",
            idempotent=True,
            expect="any",
            timeout=self.gemini.cleanup_timeout,
        )
        log.info("interaction.cancelled", interaction=interaction_id)

    async def _last_look(self, interaction_id: str, seconds: float) -> Answer:
        """Time is up after ``seconds``: cancel the interaction, and take what it has if it ended before that."""
        late = ServiceError(
            f"interaction {interaction_id} was not finished within {seconds:.3g} s and was cancelled",
            type="timeout",
            reason="processing_timeout",
            maybe_started=True,
        )
        try:
            await self.cancel(interaction_id)
            interaction = await self._retrieve(interaction_id)
        except ServiceError as error:
            raise late from error
        if interaction.get("status") == "cancelled":
            raise late
        answer = read_interaction(interaction)
        if answer is None:
            raise late
        return answer

    async def _retrieve(self, interaction_id: str, **options: Any) -> dict[str, Any]:
        answer = await self.caller.request("GET", self._at(interaction_id), timeout=self.gemini.call_timeout, **options)
        interaction = answer.json()
        if not isinstance(interaction, dict):
            raise ServiceError(
                f"Gemini sent {type(interaction).__name__} where an interaction was expected",
                type="response_error",
                reason="invalid_response_format",
            )
        return interaction

    def _at(self, interaction_id: str) -> str:
        return f"{self._path}/{quote(interaction_id, safe='')}"


def percent(elapsed: float) -> float:
    """Progress of an interaction of which nothing but its age is known: from 15 on, towards 85."""
    return 15 + 70 * elapsed / (elapsed + 30)
