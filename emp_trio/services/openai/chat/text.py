"""``OpenAITextConnector``: a chat completion, streamed."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Final

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import Refused, ServiceError
from emp_trio.jobs import Job, JobResult
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.decoders import ended_early
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.streaming import Events, SseEvent, Streaming
from emp_trio.protocols.wire_json import join_halves
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.services.openai.api import OpenAIApi
from emp_trio.services.openai.chat.answer import ChatAnswer, ChatFold
from emp_trio.services.openai.chat.call import ChatCall, ChatSettings, ask, asked, chat_call, chat_result
from emp_trio.services.openai.models import is_image_model
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, AccountSettings
from emp_trio.settings import Env

log = structlog.get_logger(__name__)

_LOOKED_AT: Final = 8192  # characters of a piece, of which the end is shown: room for a secret before it
_SHOWN: Final = 200  # characters of the answer in a progress message


class OpenAITextConnector(OpenAIApi, Http, Limits, Streaming, Connector["OpenAITextConnector.Settings"]):
    """Text from a chat completion, whose words are shown as they come.

    A job may bring its own ``api_key``, which is used for its calls alone. A completion can't be found again by another
    attempt: after a crash it is asked for, and paid, anew.
    """

    service_type: ClassVar[str] = "text_generation"
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures(cancellation=True)

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of streamed text; the times are those of a stream (OpenAI reference 13)."""

        openai: AccountSettings
        http: Annotated[
            HttpSettings,
            Env(base_url=BASE_URL, max_retries=MAX_RETRIES, timeout="${OPENAI_TIMEOUT_SECONDS:-300}"),
        ] = HttpSettings(base_url="https://api.openai.com/v1", timeout=300.0, read_timeout=120.0)
        chat: ChatSettings = ChatSettings()
        limits: LimitsSettings = LimitsSettings()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Returns:
            the text; ``data.truncated`` where it did not come to its own end (``data.finish_reason`` says how it did),
            ``data.tool_calls`` where the model wants functions called.

        Raises:
            InvalidJob: there is nothing to send, or a key that can't be sent.
            Refused: the model, or OpenAI's content filter, declined.
            ServiceError: OpenAI failed, is out of reach, or its stream ended early.
            trio.Cancelled: after the stream was closed, which ends the work upstream.
        """
        base_url = self.settings.http.base_url
        call = chat_call(job, self.settings.openai, self.settings.chat, base_url=base_url, stream=True)
        context.report(5, "sending the request to OpenAI")

        async def make(call: ChatCall) -> tuple[ChatAnswer, str | None]:
            async with (
                asked(self.limiter, job, context, call),
                self.streaming.events("POST", "/chat/completions", **call.options) as events,
            ):
                return await _answer(events, call, context), events.stream.request_id

        call, (answer, request_id) = await ask(call, make)
        log.debug("chat.answered", completion=answer.id, request=request_id)
        context.report(100, "done")
        ids = [request_id] if request_id else []
        build = partial(chat_result, job, call, answer, service_type=self.service_type, request_ids=ids)
        return await off_loop(weight([call.request.body, answer]), build)

    async def models(self) -> list[str]:
        """Models of the account that can answer: all but image models."""
        return [model for model in await self.model_ids() if not is_image_model(model)]


async def _answer(events: Events[SseEvent], call: ChatCall, context: AttemptContext) -> ChatAnswer:
    """Follow a stream to its end, and say what comes.

    What has come is an answer where the service says that it ended, in whatever way: to ask again would be to pay
    again. Where the connection is lost before that, there is none.
    """
    fold = ChatFold()
    try:
        try:
            ended = await _follow(events, fold, call, context)
        except ServiceError as error:
            if not fold.finished or isinstance(error, Refused):
                raise
            ended = True
            log.warning("chat.cut", why=error.message, missing="nothing of the answer, but perhaps its usage")
        if not (fold.finished or fold.strange or (ended and fold.in_hand)):
            raise ended_early("before a finish_reason")
        return fold.answer()
    except ServiceError as error:
        events.stream.explain(error)
        raise


async def _follow(events: Events[SseEvent], fold: ChatFold, call: ChatCall, context: AttemptContext) -> bool:
    """Follow a stream until nothing more comes; whether the service said that it has ended."""
    size, tail = 0, ""
    async for event in events:
        words = await off_loop(len(event.data), fold.take, event)
        if words is None:
            return True
        if words:
            size += len(words)
            tail = call.hide.known(tail + words[-_LOOKED_AT:])[-2 * _SHOWN :]
            shown = join_halves(tail[-_SHOWN:])
            context.report(percent(size), shown if size <= _SHOWN else f"…{shown}")
    return fold.ends_blank


def percent(size: int) -> float:
    """Progress of an answer of which so many characters have come: from 20 on, towards 90."""
    return 20 + 70 * size / (size + 2000)
