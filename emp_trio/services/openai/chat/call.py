"""Request loop and result of the text connectors, shared by all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import msgspec
import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.protocols.auth import Bearer
from emp_trio.protocols.http import CallOptions
from emp_trio.protocols.rate_limiter import RateLimiter
from emp_trio.secrets import Redactor
from emp_trio.services.billing import calls_before, counted
from emp_trio.services.openai.chat.answer import ChatAnswer
from emp_trio.services.openai.chat.request import (
    ChatRequest,
    chat_request,
    is_openai,
    own_key,
    renamed_limit,
)
from emp_trio.services.openai.models import DEFAULT_TEXT_MODEL
from emp_trio.services.openai.responses.background import request_headers
from emp_trio.services.openai.settings import AccountSettings
from emp_trio.services.redaction import redacted
from emp_trio.services.results import saved_asset
from emp_trio.settings import Env

T = TypeVar("T")

log = structlog.get_logger(__name__)


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for where a job doesn't say.

    Attributes:
        model: the text model.
        max_tokens: limit of an answer in tokens, those of its reasoning among them; None for the model's own limit.
    """

    model: Annotated[str, Env("${OPENAI_TEXT_MODEL:-" + DEFAULT_TEXT_MODEL + "}")] = DEFAULT_TEXT_MODEL
    max_tokens: Annotated[Annotated[int, msgspec.Meta(gt=0)] | None, Env("${OPENAI_MAX_TOKENS:-}")] = None


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """The call for a job.

    Attributes:
        options: headers, body, and the job's own key where it has one.
        hide: takes that key out of whatever comes back.
        own_account: it goes to the account of the job, not to that of the connector.
    """

    request: ChatRequest
    options: CallOptions
    hide: Redactor
    own_account: bool


def chat_call(job: Job, account: AccountSettings, chat: ChatSettings, *, base_url: str, stream: bool) -> ChatCall:
    """The call for a job to the service at ``base_url``.

    Raises InvalidJob where there is nothing to send, or a key that can't be sent.
    """
    key = own_key(job.payload)
    request = chat_request(
        job.payload,
        default_model=chat.model,
        max_tokens=chat.max_tokens,
        stream=stream,
        at_openai=is_openai(base_url),
    )
    for warning in request.warnings:
        log.warning(warning)
    options: CallOptions = {"json": request.body, "headers": request_headers(account, job)}
    if key is not None:  # organization and project are the connector's, and would not fit
        anybody = msgspec.structs.replace(account, organization="", project="")
        options |= {"headers": request_headers(anybody, job), "auth": Bearer(key)}
    hide = Redactor([] if key is None else [key])
    return ChatCall(request=request, options=options, hide=hide, own_account=key is not None)


async def ask(call: ChatCall, make: Callable[[ChatCall], Awaitable[T]]) -> tuple[ChatCall, T]:
    """Make a call, once more with the limit of the answer under its other name where the service refuses this one.

    Args:
        make: makes the call that it is given.

    Returns:
        the call that was taken, and what came of it. Raises what ``make`` raises.
    """
    try:
        return call, await make(call)
    except ServiceError as error:
        body = renamed_limit(call.request.body, error)
        if body is None:
            raise
        log.info("chat.limit_renamed", why=error.message)
    request = msgspec.structs.replace(call.request, body=body)
    call = msgspec.structs.replace(call, request=request, options={**call.options, "json": body})
    return call, await make(call)


@asynccontextmanager
async def asked(limiter: RateLimiter, job: Job, context: AttemptContext, call: ChatCall) -> AsyncIterator[None]:
    """Around the call: it waits for its turn, unless it goes to another account, and is counted where it may have run.

    Raises:
        InvalidJob: the job's own key is refused, or out of credit: that tells nothing of the service.
        ServiceError: that of the block; as :meth:`emp_trio.protocols.rate_limiter.RateLimiter.limit` and
            :func:`emp_trio.services.billing.counted` say.
    """
    async with counted(job, context, ahead=False):
        if not call.own_account:
            async with limiter.limit():
                yield
            return
        try:
            yield
        except ServiceError as error:
            if error.type == "auth_error" or error.reason == "daily_quota_exceeded":
                text = f"{error.message} (with the job's own API key)"
                raise InvalidJob(text, type=error.type, reason=error.reason) from error
            raise


def chat_result(
    job: Job,
    call: ChatCall,
    answer: ChatAnswer,
    *,
    service_type: str,
    request_ids: list[str],
    saved: SavedAsset | None = None,
) -> JobResult:
    """The result of a text job (connector reference 4.5).

    ``metadata.attempts`` above 1 says that earlier attempts may have been billed as well: a completion has no id by
    which another attempt could find it. ``maybe_billed_before`` counts those of which it is known.
    """
    usage = answer.usage
    data: dict[str, Any] = {
        "text": answer.text,
        "text_content": answer.text,
        "content_type": "text",
        "model_used": answer.model,
        "tokens_used": usage["total_tokens"],
        "usage": usage,
        "finish_reason": answer.finish_reason,
    }
    if answer.truncated:
        data["truncated"] = True
    if answer.tool_calls:
        data["tool_calls"] = list(answer.tool_calls)
    if answer.logprobs is not None:
        data["logprobs"] = answer.logprobs
    if answer.choices:
        data["choices"] = list(answer.choices)
    metadata: dict[str, Any] = {
        "model": answer.model,
        "service": "openai_text",
        "tokens": {
            "prompt": usage["input_tokens"],
            "completion": usage["output_tokens"],
            "total": usage["total_tokens"],
        },
        "attempts": job.attempt,
    }
    if calls_before(job):
        metadata["maybe_billed_before"] = calls_before(job)
    warnings = list(call.request.warnings)
    if answer.note:
        warnings.append(f"the answer was broken off: {call.hide.known(answer.note)}")
    if warnings:
        metadata["warnings"] = warnings
    if answer.skipped:
        metadata["skipped_output"] = list(answer.skipped)
    if saved is not None:
        data |= {"mime_type": "text/plain", "saved_asset": saved_asset(saved)}
        metadata["saved_asset"] = saved_asset(saved)
    return JobResult(
        success=True,
        data=call.hide.known_in(data),
        metadata=metadata,
        output_files=() if saved is None else (saved.output_file(),),
        service_metadata={
            "service_version": "openai-chat",
            "service_type": service_type,
            "service_job_id": answer.id,
            "model_used": answer.model,
            "usage": usage,
            "request_ids": request_ids,
        },
        raw_request_payload=call.hide.known_in(redacted(call.request.body)),
    )
