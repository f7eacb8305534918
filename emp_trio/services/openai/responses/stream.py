"""Follow a streamed response, resume a lost stream, and fall back to polling (OpenAI reference 5, 6.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

import structlog
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.errors import Refused, ServiceError
from emp_trio.jobs import Job
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.http import CallOptions
from emp_trio.protocols.http.paths import segment
from emp_trio.protocols.streaming import EventStream, SseEvent
from emp_trio.services.billing import counted
from emp_trio.services.error_shapes import event_value
from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.openai.responses.background import BackgroundRun, ResponsesClient, pause, percent
from emp_trio.services.openai.responses.events import ResponseStream, fold_event
from emp_trio.services.openai.responses.request import ResponsesRequest
from emp_trio.services.remote_work import run_announced_work

log = structlog.get_logger(__name__)

Known = Callable[[str], Awaitable[None]]
OnPartial = Callable[[ResponseStream], None]


def ignored(state: ResponseStream) -> None:
    """What becomes of a partial image where nobody wants to see it: it has been counted."""


async def run_stream(
    client: ResponsesClient,
    streaming: EventStream,
    job: Job,
    context: AttemptContext,
    request: ResponsesRequest,
    *,
    on_partial: OnPartial = ignored,
    plan: Callable[[float, float], float] = pause,
) -> Answer:
    """Run a request as a stream.

    A response that runs in the background as well (``background: true``) is remembered as soon as the stream names it.
    Then a lost stream is resumed after the last event that came, a few times, and after that the response is polled; a
    next attempt adopts it by polling. Without ``background`` a lost stream is lost, with all that it would have
    brought, and a cancel ends the response by closing the connection.

    Args:
        request: its body says ``stream: true``.
        on_partial: told of each partial image; must not block.
        plan: as of :func:`~emp_trio.services.openai.responses.background.run_background`, for when it is polled.

    Returns:
        the answer: of the event that ended the stream, never of a partial image.

    Raises:
        Refused: OpenAI declined.
        ServiceError: it failed, was lost for good, or was not done within ``poll_timeout``.
        trio.Cancelled: after a response in the background was cancelled at OpenAI, where ``context.stop_remote_work``
            says so.
    """
    run = _Stream(client, streaming, job, context, request, on_partial, plan)
    if not request.body.get("background"):
        return await run.once()
    return await run_announced_work(
        job,
        context,
        key="response_id",
        usable=run.background.usable,
        run=run.to_the_end,
        wait=run.background.wait,
        cancel=run.background.cancel,
        grace=run.background.openai.cleanup_timeout,
    )


class _Stream:
    """The stream of one attempt, over as many connections as it takes."""

    def __init__(
        self,
        client: ResponsesClient,
        streaming: EventStream,
        job: Job,
        context: AttemptContext,
        request: ResponsesRequest,
        on_partial: OnPartial,
        plan: Callable[[float, float], float],
    ) -> None:
        self.streaming = streaming
        self.progress = context
        self.on_partial = on_partial
        self.background = BackgroundRun(client, job, context, request, plan=plan)
        self.began = trio.current_time()
        self.state = ResponseStream()
        self._done = False  # [DONE] has come

    @property
    def request(self) -> ResponsesRequest:
        """The request, as the service takes it."""
        return self.background.request

    async def once(self) -> Answer:
        """Follow a stream that can't be resumed."""

        async def known(response_id: str) -> None:
            await trio.lowlevel.checkpoint()  # nothing to remember: nobody could adopt it

        self.progress.report(5, "sending the request to OpenAI")
        async with counted(self.background.job, self.progress, ahead=True) as sending:
            lost: ServiceError | None = None
            try:
                await self.background.taken(
                    lambda: self._follow(known, "POST", "/responses", json=self.request.body, sending=sending)
                )
            except ServiceError as error:
                lost = error
            answer = await off_loop(weight(self.state), self._answer_or_words) if lost is None else None
            if answer is None:  # nobody can resume it: what is finished of it is all that there will ever be
                answer = self.state.in_hand(
                    image_wanted=self.request.image_wanted, image_model=self.request.image_model
                )
            if answer is None:
                raise lost or _lost(self.state)
            return self.background.named(answer)

    def _answer_or_words(self) -> Answer | None:
        """The answer; or what has come, where the service ended the stream in another way: it is paid for."""
        wanted, model = self.request.image_wanted, self.request.image_model
        try:
            answer = self._answer()
        except Refused:
            raise
        except ServiceError:
            answer = self.state.broken_off(image_wanted=wanted, image_model=model)
            if answer is None:
                raise
        if answer is None and self._done:
            answer = self.state.broken_off(image_wanted=wanted, image_model=model)
        return answer

    async def to_the_end(self, known: Known) -> Answer:
        """Follow a stream through losses, until it ends or the time is up."""
        openai = self.background.openai
        self.progress.report(5, "sending the request to OpenAI")
        with trio.move_on_after(openai.poll_timeout):
            async with counted(self.background.job, self.progress, ahead=False):
                resumable = await self.background.taken(
                    lambda: self._follow_until_lost(known, "POST", "/responses", json=self.request.body)
                )
            for _ in range(openai.stream_resumptions):
                if self.state.ended or not resumable:
                    break
                resumable = await self._resume(known)
            answer = await off_loop(weight(self.state), self._answer)
            if answer is not None:
                return answer
            if self.state.response_id:
                return await self.background.wait(self.state.response_id)
        if not self.state.response_id:
            raise _lost(self.state)
        return await self.background.last_look(self.state.response_id, openai.poll_timeout)

    async def _resume(self, known: Known) -> bool:
        state = self.state
        log.info("stream.resumed", response=state.response_id, after=state.sequence)
        params = {"stream": "true", "starting_after": state.sequence if state.sequence >= 0 else None}
        return await self._follow_until_lost(
            known, "GET", f"/responses/{segment(state.response_id)}", params=params, retries=0
        )

    async def _follow_until_lost(self, known: Known, method: str, path: str, **options: Unpack[CallOptions]) -> bool:
        """Follow a connection; what goes wrong with it is no failure once the response has an id.

        Returns:
            whether there is a point in resuming the stream.
        """
        try:
            await self._follow(known, method, path, **options)
        except ServiceError as error:
            if not self.state.response_id:
                raise
            log.warning("stream.lost", response=self.state.response_id, after=self.state.sequence, error=error.message)
            return error.retry and error.status is None  # a service that says no is better asked patiently: polled
        if not self.state.response_id and not self.state.ended:
            raise _lost(self.state)
        return True

    async def _follow(self, known: Known, method: str, path: str, **options: Unpack[CallOptions]) -> None:
        """Read the events of one connection, up to the one that ends the stream or the loss of the connection."""
        openai = self.background.openai
        options |= {
            "headers": self.background.headers,
            "timeout": openai.poll_timeout,
            "read_timeout": openai.stream_read_timeout,
        }
        async with self.streaming.events(method, path, **options) as events:
            self.background.seen_by = events.stream.request_id
            if self.background.created_by is None:
                self.background.created_by = events.stream.request_id
            async for event in events:
                if event.done:  # some compatible servers say so
                    self._done = True
                    continue
                before = self.state
                self.state = await off_loop(len(event.data), _after, before, event)
                if self.state.response_id and not before.response_id:
                    log.info("response.created", response=self.state.response_id, request=events.stream.request_id)
                    await known(self.state.response_id)
                if self.state.ended:
                    return
                self._report(before)

    def _report(self, before: ResponseStream) -> None:
        state = self.state
        elapsed = trio.current_time() - self.began
        if state.partials > before.partials:
            self.on_partial(state)
            wanted = _partials_wanted(self.request.body)
            message = f"partial image {state.partials}{f' of {wanted}' if wanted else ''}"
        elif state.characters:
            message = f"{state.characters} characters"
        else:
            message = f"OpenAI: {state.status} for {elapsed:.0f} s"
        self.progress.report(percent(elapsed), message)

    def _answer(self) -> Answer | None:
        answer = self.state.answer(image_wanted=self.request.image_wanted, image_model=self.request.image_model)
        return answer and self.background.named(answer)


def _after(state: ResponseStream, event: SseEvent) -> ResponseStream:
    return fold_event(state, event_value(event, keep_halves=True))


def _partials_wanted(body: dict[str, Any]) -> int:
    tools = body.get("tools")
    numbers = (
        [tool.get("partial_images") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    )
    return next((number for number in numbers if isinstance(number, int)), 0)


def _lost(state: ResponseStream) -> ServiceError:
    return ServiceError(
        f"the stream ended before the response did ({state.characters} characters and {state.partials} partial "
        "images had come)",
        type="network_error",
        reason="connection_failed",
        maybe_started=True,
    )
