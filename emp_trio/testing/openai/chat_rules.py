"""Validate requests of ``POST /chat/completions`` (OpenAI reference 10). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from emp_trio.testing.openai.checks import (
    BOOL,
    INT,
    NUMBER,
    OBJECT,
    TEXT,
    Fault,
    choice_fault,
    is_reasoning,
    metadata_fault,
    missing,
    text_model_fault,
    type_fault,
    unsupported,
)

_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "model": (str,),
    "messages": (list,),
    "max_completion_tokens": INT,
    "max_tokens": INT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "reasoning_effort": TEXT,
    "verbosity": TEXT,
    "response_format": (dict,),
    "n": INT,
    "stop": (str, list, type(None)),
    "seed": INT,
    "metadata": OBJECT,
    "store": BOOL,
    "service_tier": TEXT,
    "safety_identifier": (str,),
    "user": (str,),
    "prompt_cache_key": TEXT,
    "frequency_penalty": NUMBER,
    "presence_penalty": NUMBER,
    "logit_bias": OBJECT,
    "logprobs": BOOL,
    "top_logprobs": INT,
    "stream": BOOL,
    "stream_options": OBJECT,
    "tools": (list,),
    "tool_choice": (str, dict),
    "parallel_tool_calls": (bool,),
}
_ROLES: Final = ("developer", "system", "user", "assistant", "tool")
_MESSAGE: Final = frozenset(("role", "content", "name", "refusal", "tool_calls", "tool_call_id"))
_PARTS: Final = {
    "text": frozenset(("type", "text")),
    "image_url": frozenset(("type", "image_url")),
    "refusal": frozenset(("type", "refusal")),
}
_FORMATS: Final = ("text", "json_object", "json_schema")
_STREAM_OPTIONS: Final = frozenset(("include_usage", "include_obfuscation"))


def chat_violations(body: dict[str, Any]) -> list[str]:
    """Everything in a request that no reference documents."""
    found = [f"undocumented field {name!r}" for name in body if name not in _FIELDS]
    if body.get("max_tokens") is not None:
        found.append("max_tokens is deprecated: use max_completion_tokens")
    options = body.get("stream_options")
    if isinstance(options, dict):
        found += [f"undocumented stream option {name!r}" for name in options.keys() - _STREAM_OPTIONS]
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict):
            found += [f"undocumented field {name!r} of a message" for name in message.keys() - _MESSAGE]
    return found


def chat_fault(body: dict[str, Any]) -> Fault | None:
    """The first documented error of a request, or None."""
    return next(_faults(body), None)


def _faults(body: dict[str, Any]) -> Iterator[Fault]:
    effort = body.get("reasoning_effort")
    fault = (
        type_fault(body, _FIELDS)
        or text_model_fault(body, api="Chat Completions", effort=effort)
        or metadata_fault(body)
    )
    if fault is not None:
        yield fault
        return
    if is_reasoning(body["model"]):
        if body.get("max_tokens") is not None:
            yield unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
        if body.get("tools") and effort != "none":
            yield Fault("Function tools need reasoning_effort 'none' with this model.", "tools", "unsupported_value")
    if not body.get("messages"):
        yield missing("messages")
    for index, message in enumerate(body["messages"]):
        yield from _message_faults(message, f"messages[{index}]")
    if not 1 <= (1 if body.get("n") is None else body["n"]) <= 128:
        yield Fault("n must be from 1 to 128.", "n", "integer_out_of_range")
    if body.get("stream_options") is not None and not body.get("stream"):
        yield Fault("stream_options is only allowed when stream is enabled.", "stream_options")
    yield from _format_faults(body.get("response_format"))
    yield from _tool_faults(body)


def _message_faults(message: Any, where: str) -> Iterator[Fault]:
    if not isinstance(message, dict):
        yield Fault(f"Invalid type for '{where}'.", where, "invalid_type")
        return
    fault = choice_fault(message.get("role"), _ROLES, f"{where}.role")
    if fault is not None:
        yield fault
    content = message.get("content")
    if content is None and message.get("role") != "assistant":
        yield missing(f"{where}.content")
    if not isinstance(content, (str, list, type(None))):
        yield Fault(f"Invalid type for '{where}.content'.", f"{where}.content", "invalid_type")
    for index, part in enumerate(content if isinstance(content, list) else []):
        yield from _part_faults(part, f"{where}.content[{index}]")


def _part_faults(part: Any, where: str) -> Iterator[Fault]:
    kind = part.get("type") if isinstance(part, dict) else None
    fault = choice_fault(kind, tuple(_PARTS), f"{where}.type")
    if fault is not None:
        yield fault
        return
    for name in sorted(part.keys() - _PARTS[str(kind)]):
        yield Fault(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    image = part.get("image_url")
    if kind == "image_url" and not (isinstance(image, dict) and isinstance(image.get("url"), str)):
        yield Fault(f"Invalid type for '{where}.image_url'.", f"{where}.image_url", "invalid_type")


def _format_faults(format: dict[str, Any] | None) -> Iterator[Fault]:
    if format is None:
        return
    fault = choice_fault(format.get("type"), _FORMATS, "response_format.type")
    if fault is not None:
        yield fault
    schema = format.get("json_schema")
    if format.get("type") == "json_schema" and not (isinstance(schema, dict) and isinstance(schema.get("name"), str)):
        yield missing("response_format.json_schema.name")


def _tool_faults(body: dict[str, Any]) -> Iterator[Fault]:
    names = []
    for index, tool in enumerate(body.get("tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            yield missing(f"tools[{index}].function.name")
        else:
            names.append(function["name"])
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        fault = choice_fault(choice, ("none", "auto", "required"), "tool_choice")
        if fault is not None:
            yield fault
    if choice is not None and not names:
        yield Fault("tool_choice is only allowed when tools are specified.", "tool_choice")
    chosen = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and not (isinstance(chosen, dict) and chosen.get("name") in names):
        yield Fault("The tool chosen is not among 'tools'.", "tool_choice")
