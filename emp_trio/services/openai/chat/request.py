"""Job payloads as bodies of ``POST /chat/completions`` (OpenAI reference 10; connector reference 4.5). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.protocols.urls import origin
from emp_trio.secrets import Secret
from emp_trio.services.lenient import numbers
from emp_trio.services.openai.errors import refuses

_NUMBERS: Final = frozenset(
    "temperature top_p n seed frequency_penalty presence_penalty top_logprobs max_tokens max_completion_tokens".split()
)
_OWN: Final = frozenset(
    "ctx bucket prefix filename provider cdnUrl workflow_name user_id generation_context save_assets save_output "
    "api_key prompt system_prompt stream stream_options".split()
)
"""Members of a payload that are for us and not for the service. Everything else is the service's to judge."""

_LIMITS: Final = ("max_completion_tokens", "max_tokens")


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A body to send, and what was left out of it, for the result and the log."""

    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


def chat_request(
    payload: Mapping[str, Any], *, default_model: str, max_tokens: int | None, stream: bool, at_openai: bool = True
) -> ChatRequest:
    """The request of a text job.

    Args:
        payload: ``messages``, or ``prompt``; ``system_prompt`` comes before either. What is not for us goes through as
            it is, known or not: other services take more than OpenAI, and each of them says clearly what it refuses.
            Nothing is added that reasoning models refuse: a temperature is sent only where the job has one.
        default_model: used where the payload names no model.
        max_tokens: limit of the answer where the payload has none; None for the model's own.
        stream: whether the answer is to come as a stream, with its usage.
        at_openai: the service is OpenAI itself, which calls ``max_tokens`` ``max_completion_tokens`` now; many others
            know only the older name.

    Raises:
        InvalidJob: there is neither a prompt nor a message.
    """
    body: dict[str, Any] = {"model": payload.get("model") or default_model, "messages": _messages(payload)}
    kept = _OWN | body.keys() | (set(_LIMITS) if at_openai else set())
    body |= {name: value for name, value in payload.items() if name not in kept and value is not None}
    body |= _limit(payload, max_tokens, at_openai=at_openai)
    body = numbers(body, _NUMBERS)
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    warnings = []
    if payload.get("messages") is not None and payload.get("prompt") is not None:
        warnings.append("prompt is left out: the payload has messages")
    return ChatRequest(body=body, warnings=tuple(warnings))


def is_openai(base_url: str) -> bool:
    """Whether an address is one of OpenAI itself, and not of a service that speaks its language."""
    try:
        host = origin(base_url)[1]
    except ValueError:
        return False
    return host == "openai.com" or host.endswith(".openai.com")


def own_key(payload: Mapping[str, Any]) -> Secret | None:
    """The job's own API key, which takes the place of the connector's, or None.

    Raises:
        InvalidJob: it is nothing that can be sent as a key; the text doesn't show it.
    """
    key = payload.get("api_key")
    if key is None or key == "":
        return None
    if not isinstance(key, str) or not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidJob(
            "payload.api_key is no API key: it must be a text without spaces and line breaks", reason="invalid_format"
        )
    return Secret(key)


def renamed_limit(body: Mapping[str, Any], error: ServiceError) -> dict[str, Any] | None:
    """``body`` with the limit of the answer under its other name, where the service refused it under this one before it
    began; else None."""
    for name, other in (_LIMITS, _LIMITS[::-1]):
        if name in body and other not in body and refuses(error, name):
            return {other if key == name else key: value for key, value in body.items()}
    return None


def _limit(payload: Mapping[str, Any], default: int | None, *, at_openai: bool) -> dict[str, Any]:
    """What is sent as the limit of the answer, beside what goes through as it is."""
    given = next((payload[name] for name in _LIMITS if payload.get(name) is not None), None)
    if at_openai:
        limit = default if given is None else given
        return {} if limit is None else {"max_completion_tokens": limit}
    return {"max_tokens": default} if given is None and default is not None else {}


def _messages(payload: Mapping[str, Any]) -> list[Any]:
    given, prompt = payload.get("messages"), payload.get("prompt")
    if given is not None:
        if not isinstance(given, list) or not given or not all(isinstance(message, dict) for message in given):
            raise InvalidJob("payload.messages must be a list of messages, and not empty", reason="invalid_format")
        messages = list(given)
    elif isinstance(prompt, str) and prompt:
        messages = [{"role": "user", "content": prompt}]
    else:
        raise InvalidJob("the payload has neither a prompt nor messages", reason="missing_required_field")
    system = payload.get("system_prompt")
    return [{"role": "system", "content": system}, *messages] if isinstance(system, str) and system else messages
