"""Job payloads as bodies of ``POST /chat/completions`` (OpenAI reference 10; connector reference 4.5). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import Secret

_PASSED_ON: Final = (
    "temperature top_p reasoning_effort verbosity response_format n stop seed metadata store service_tier "
    "safety_identifier tools tool_choice parallel_tool_calls"
).split()
_READ: Final = frozenset("model messages prompt system_prompt max_tokens max_completion_tokens api_key".split())
_EXTRAS: Final = frozenset(
    "ctx bucket prefix filename provider cdnUrl workflow_name user_id generation_context save_assets save_output "
    "stream stream_options".split()
)


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A body to send, and what was left out of it, for the result and the log."""

    body: dict[str, Any]
    warnings: tuple[str, ...] = ()


def chat_request(
    payload: Mapping[str, Any], *, default_model: str, max_tokens: int | None, stream: bool
) -> ChatRequest:
    """The request of a text job.

    Args:
        payload: ``messages``, or ``prompt``; ``system_prompt`` comes before either. ``max_tokens`` is sent under its
            present name; what else the reference documents goes through as it is. Nothing is added that reasoning
            models refuse: a temperature is sent only where the job has one.
        default_model: used where the payload names no model.
        max_tokens: limit of the answer where the payload has none; None for the model's own.
        stream: whether the answer is to come as a stream, with its usage.

    Raises:
        InvalidJob: there is neither a prompt nor a message.
    """
    body: dict[str, Any] = {"model": payload.get("model") or default_model, "messages": _messages(payload)}
    body |= {name: payload[name] for name in _PASSED_ON if payload.get(name) is not None}
    limits = (payload.get("max_completion_tokens"), payload.get("max_tokens"), max_tokens)
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is not None:
        body["max_completion_tokens"] = limit
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    warnings = []
    if payload.get("messages") is not None and payload.get("prompt") is not None:
        warnings.append("prompt is left out: the payload has messages")
    unknown = sorted(name for name in payload if name not in _READ | _EXTRAS and name not in _PASSED_ON)
    if unknown:
        warnings.append(f"left out, because chat completions don't take it: {', '.join(unknown)[:300]}")
    return ChatRequest(body=body, warnings=tuple(warnings))


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
