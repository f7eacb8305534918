"""``OpenAITextSimpleConnector``: a prompt in, text out, in one call that is not streamed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.http import Http, HttpSettings
from emp_trio.protocols.limits import Limits, LimitsSettings
from emp_trio.protocols.saves_assets import Generated, GeneratedFile, SavesAssets
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector
from emp_trio.services.lenient import flag
from emp_trio.services.openai.api import OpenAIApi
from emp_trio.services.openai.chat.answer import ChatAnswer, read_body
from emp_trio.services.openai.chat.call import ChatCall, ChatSettings, ask, asked, chat_call, chat_result
from emp_trio.services.openai.models import is_image_model
from emp_trio.services.openai.settings import BASE_URL, MAX_RETRIES, AccountSettings
from emp_trio.settings import Env

log = structlog.get_logger(__name__)


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a call has brought, as it may be kept for another attempt."""

    answer: ChatAnswer
    request_ids: list[str]


class OpenAITextSimpleConnector(OpenAIApi, Http, Limits, SavesAssets, Connector["OpenAITextSimpleConnector.Settings"]):
    """Text from a chat completion, in one piece; stored as an asset too where ``payload.save_output`` is true.

    A job may bring its own ``api_key``, which is used for its calls alone. An answer that could not be stored is kept
    for the next attempt; after a crash it is asked for, and paid, anew.
    """

    service_type: ClassVar[str] = "text_generation"

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """Settings of text in one piece; the read timeout covers the whole time in which the model thinks."""

        openai: AccountSettings
        http: Annotated[
            HttpSettings,
            Env(base_url=BASE_URL, max_retries=MAX_RETRIES, timeout="${OPENAI_TIMEOUT_SECONDS:-120}"),
        ] = HttpSettings(base_url="https://api.openai.com/v1", timeout=120.0, read_timeout=120.0)
        chat: ChatSettings = ChatSettings()
        limits: LimitsSettings = LimitsSettings()

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Returns:
            the text; ``data.truncated`` where it did not come to its own end (``data.finish_reason`` says how it did).

        Raises:
            InvalidJob: there is nothing to send, or a key that can't be sent.
            Refused: the model, or OpenAI's content filter, declined.
            ServiceError: OpenAI failed, or is out of reach.
            AssetError: the text could not be stored.
            trio.Cancelled: after the connection was closed; whether OpenAI goes on with the work is unknown.
        """
        base_url = self.settings.http.base_url
        call = chat_call(job, self.settings.openai, self.settings.chat, base_url=base_url, stream=False)
        saves = flag(job.payload, "save_output", default=False)

        async def make() -> Generated:
            nonlocal call
            context.report(5, "sending the request to OpenAI")

            async def one(call: ChatCall) -> _Made:
                async with asked(self.limiter, job, context, call):
                    return await self._ask(call)

            call, made = await ask(call, one)
            text = await off_loop(len(made.answer.text), call.hide.known, made.answer.text)
            files = (GeneratedFile(data=text.encode(), media_type="text/plain"),) if saves and text else ()
            return Generated(files=files, data=await off_loop(weight(made), _plain, made, call.hide))

        def result(facts: dict[str, Any], saved: list[SavedAsset]) -> JobResult:
            made = msgspec.convert(facts, _Made)
            return chat_result(
                job,
                call,
                made.answer,
                service_type=self.service_type,
                request_ids=made.request_ids,
                saved=saved[0] if saved else None,
            )

        if saves:
            return await self.assets.produce(job, context, make=make, result=result)
        facts = (await make()).data
        context.report(90, "the answer is there")
        context.report(100, "done")
        return await off_loop(weight((facts, job.payload)), result, facts, [])

    async def models(self) -> list[str]:
        """Models of the account that can answer: all but image models."""
        return [model for model in await self.model_ids() if not is_image_model(model)]

    async def _ask(self, call: ChatCall) -> _Made:
        reply = await self.http.request("POST", "/chat/completions", expect="any", **call.options)
        try:
            answer = await off_loop(len(reply.body), read_body, reply)
        except ServiceError as error:
            error.request_id = reply.request_id
            request = f" (request {reply.request_id})" if reply.request_id else ""
            error.message = call.hide.text(f"{error.message}{request}")
            error.args = (error.message,)
            raise
        log.debug("chat.answered", completion=answer.id, request=reply.request_id)
        return _Made(answer=answer, request_ids=[reply.request_id] if reply.request_id else [])


def _plain(made: _Made, hide: Redactor) -> Any:
    return hide.known_in(msgspec.to_builtins(made))
