"""An interaction in the background: created once, polled, adopted after a crash, cancelled (Gemini reference A7)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.http import HttpResponse
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.http.request import Sending
from emp_trio.protocols.polling import Ended, NotFinished, Poller, Wait
from emp_trio.retry import parse_retry_after
from emp_trio.secrets import excerpt
from emp_trio.services.billing import counted
from emp_trio.services.gemini.answers import Answer, read_interaction
from emp_trio.services.gemini.api import GeminiClient
from emp_trio.services.gemini.errors import interactions_unavailable
from emp_trio.services.redaction import excerpt_of
from emp_trio.services.remote_work import run_announced_work
from emp_trio.services.work_states import phase_of

log = structlog.get_logger(__name__)

_LONGEST_ID: Final = 512  # characters; it becomes part of a path, and of the checkpoint

KEY = "interaction_id"
"""Name of the id in a checkpoint."""


async def run_interaction(
    client: GeminiClient,
    poller: Poller,
    job: Job,
    context: AttemptContext,
    body: Callable[[], Awaitable[dict[str, Any]]],
) -> Answer | None:
    """Run a request as an interaction in the background, or adopt the one that an earlier attempt has started.

    Args:
        body: makes the body of the request; not called where there is something to adopt.

    Returns:
        the answer; None where this server has no interactions, and nothing was started.

    Raises:
        Refused: Gemini declined.
        ServiceError: it failed, or was not done within ``poll_timeout``.
        trio.Cancelled: after the interaction was cancelled upstream, where ``context.stop_remote_work`` says so.
    """
    run = _Run(client, poller, job, context, body)
    if not isinstance((job.checkpoint or {}).get(KEY), str):
        await run.prepare()  # as long as that takes: a cancel cuts ``start`` short
    try:
        return await run_announced_work(
            job,
            context,
            key=KEY,
            usable=run.usable,
            run=run.to_the_end,
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
        client: GeminiClient,
        poller: Poller,
        job: Job,
        context: AttemptContext,
        body: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self.http = client.http
        self.poller = poller
        self.job = job
        self.progress = context
        self.not_started: ServiceError | None = None
        self.gemini = client.gemini
        self._make_body = body
        self._body: dict[str, Any] | None = None
        self._path = f"{client.address.root}/interactions"

    async def prepare(self) -> dict[str, Any]:
        if self._body is None:
            self._body = await self._make_body()
        return self._body

    async def to_the_end(self, known: Callable[[str], Awaitable[None]]) -> Answer:
        """Create the interaction, tell ``known`` its id, and wait for its end. A server that answers at once, as those
        do that know no background, is not asked again: there may be nothing to ask for."""
        body = await self.prepare()
        self.progress.report(5, "sending the request to Gemini")
        async with counted(self.job, self.progress, ahead=True) as sending:
            interaction = await self._create(body, sending)
            answer = await off_loop(weight(interaction), read_interaction, interaction)
            if answer is not None:
                return answer
            interaction_id = _id(interaction)
        log.info("interaction.created", interaction=interaction_id)
        await known(interaction_id)
        return await self.wait(interaction_id)

    async def _create(self, body: dict[str, Any], sending: Sending) -> dict[str, Any]:
        try:
            answer = await self.http.request(
                "POST", self._path, json=body, timeout=self.gemini.create_timeout, sending=sending
            )
        except ServiceError as error:
            if interactions_unavailable(error):
                self.not_started = error
            raise
        return _interaction(answer, maybe_started=True)

    async def usable(self, interaction_id: str) -> bool:
        """Whether an earlier interaction is under way, done, or finally refused; a failed one is not."""
        try:
            interaction, _ = await self._retrieve(interaction_id)
        except ServiceError as error:
            if error.status == 404:
                return False
            raise
        try:
            await off_loop(weight(interaction), read_interaction, interaction)
        except ServiceError as error:
            return not error.retry and error.code != "cancelled"
        return True

    async def wait(self, interaction_id: str) -> Answer:
        """Look at the interaction until it is finished; one that takes too long is cancelled."""
        began = trio.current_time()

        async def look() -> Answer | Ended | Wait:
            try:
                interaction, stated = await self._retrieve(interaction_id, retries=0)
            except ServiceError as error:
                if error.status == 404:  # expired or deleted: nothing about the request is invalid
                    error.type, error.reason = "response_error", "missing_expected_data"
                raise
            try:
                answer = await off_loop(weight(interaction), read_interaction, interaction)
            except ServiceError as error:
                return Ended(error)
            if answer is not None:
                return answer
            elapsed = trio.current_time() - began
            status = excerpt(str(interaction.get("status")), 40)
            self.progress.report(percent(elapsed), f"Gemini: {status} for {elapsed:.0f} s")
            return Wait(stated or 0.0)

        limit = self.gemini.poll_timeout
        with trio.move_on_after(limit):
            try:
                found: Answer = await self.poller.poll(look, hint=f"interaction {interaction_id}")
                return found
            except NotFinished as error:
                limit = error.seconds
        return await self._last_look(interaction_id, limit)

    async def cancel(self, interaction_id: str) -> None:
        await self.http.request(
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
            interaction, _ = await self._retrieve(interaction_id)
        except ServiceError as error:
            raise late from error
        try:
            answer = await off_loop(weight(interaction), read_interaction, interaction)
        except ServiceError as error:
            if phase_of(interaction.get("status")) == "cancelled":
                raise late from error
            raise
        if answer is None:
            raise late
        return answer

    async def _retrieve(
        self, interaction_id: str, *, retries: int | None = None
    ) -> tuple[dict[str, Any], float | None]:
        """The interaction, and the seconds that Gemini asks to wait before the next look."""
        answer = await self.http.request(
            "GET", self._at(interaction_id), timeout=self.gemini.call_timeout, retries=retries
        )
        return _interaction(answer), parse_retry_after(answer.headers, now=time.time())

    def _at(self, interaction_id: str) -> str:
        return f"{self._path}/{segment(interaction_id)}"


def _interaction(answer: HttpResponse, *, maybe_started: bool = False) -> dict[str, Any]:
    interaction = answer.json()
    if not isinstance(interaction, dict) or not interaction.keys() & {"id", "status", "steps", "output_image"}:
        raise ServiceError(
            f"Gemini sent {excerpt_of(interaction, 200)} where an interaction was expected",
            type="response_error",
            reason="invalid_response_format",
            maybe_started=maybe_started,
        )
    return interaction


def _id(interaction: dict[str, Any]) -> str:
    found = interaction.get("id")
    if not isinstance(found, str) or not found.strip(".") or len(found) > _LONGEST_ID:
        raise ServiceError(
            "Gemini took the request without giving the interaction an id that can be used",
            type="response_error",
            reason="missing_expected_data",
            maybe_started=True,
        )
    return found


def percent(elapsed: float) -> float:
    """Progress of an interaction of which nothing but its age is known: from 15 on, towards 85."""
    return 15 + 70 * elapsed / (elapsed + 30)
