"""Validate requests as Ollama does (Ollama reference B1, B2, B4). Pure.

Two kinds of diagnostics: a fault is what the server answers with a 400; a violation is what it may well let pass but
nobody has documented.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

_TEXT: Final = (str,)
_KEEP: Final = (str, int, float)
_SHARED: Final[dict[str, tuple[type, ...]]] = {
    "model": _TEXT,
    "format": (str, dict),
    "options": (dict,),
    "stream": (bool,),
    "think": (bool, str),
    "keep_alive": _KEEP,
    "truncate": (bool,),
    "shift": (bool,),
    "logprobs": (bool,),
    "top_logprobs": (int,),
}
FIELDS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "generate": _SHARED
    | {
        "prompt": _TEXT,
        "suffix": _TEXT,
        "system": _TEXT,
        "template": _TEXT,
        "raw": (bool,),
        "context": (list,),
        "images": (list,),
    },
    "chat": _SHARED | {"messages": (list,), "tools": (list,)},
    "embed": {
        "model": _TEXT,
        "input": (str, list),
        "truncate": (bool,),
        "dimensions": (int,),
        "keep_alive": _KEEP,
        "options": (dict,),
    },
    "pull": {"model": _TEXT, "stream": (bool,)},
}
_OPTIONS: Final[dict[str, tuple[type, ...]]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": (int,),
    "min_p": (int, float),
    "seed": (int,),
    "stop": (str, list),
    "num_ctx": (int,),
    "num_predict": (int,),
    "repeat_penalty": (int, float),
}
_MESSAGE: Final = frozenset("role content images thinking tool_calls tool_name tool_call_id".split())
_ROLES: Final = ("system", "user", "assistant", "tool")
_EFFORTS: Final = ("low", "medium", "high", "max")
_KEEP_ALIVE: Final = re.compile(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+|-?\d+")


def violations_of(route: str, body: dict[str, Any]) -> list[str]:
    """Everything in a request that no reference documents."""
    found = [f"{route}: undocumented field {name!r}" for name in body if name not in FIELDS[route]]
    options = body.get("options")
    if isinstance(options, dict):
        found += [f"{route}: undocumented option {name!r}" for name in options if name not in _OPTIONS]
    if "context" in body:
        found.append("generate: context is deprecated")
    for message in body.get("messages", []) if isinstance(body.get("messages"), list) else []:
        if isinstance(message, dict):
            found += [f"chat: undocumented field {name!r} of a message" for name in message if name not in _MESSAGE]
    if isinstance(body.get("think"), str) and body["think"] not in _EFFORTS:
        found.append(f"{route}: undocumented think {body['think']!r}")
    return found


def fault_of(route: str, body: Any) -> str | None:
    """The text of the 400 that a request deserves, or None."""
    if not isinstance(body, dict):
        return "missing request body"
    for name, types in FIELDS[route].items():
        if name in body and not _is(body[name], types):
            return f"json: cannot unmarshal {type(body[name]).__name__} into Go struct field .{name}"
    for name, value in body.get("options", {}).items():
        if name in _OPTIONS and not _is(value, _OPTIONS[name]):
            return f'option "{name}" must be of type {_OPTIONS[name][-1].__name__}'
    if not body.get("model"):
        return "model is required"
    if route == "chat" and not body.get("messages"):
        return "messages is required"
    if route == "embed" and not _texts(body.get("input")):
        return "invalid input type"
    keep = body.get("keep_alive")
    if isinstance(keep, str) and not _KEEP_ALIVE.fullmatch(keep):
        return f'time: invalid duration "{keep}"'
    if isinstance(body.get("format"), str) and body["format"] not in ("", "json"):
        return f'invalid format: "{body["format"]}"; expected "json" or a JSON schema'
    if body.get("tools") is not None and not all(_is_tool(tool) for tool in body["tools"]):
        return "invalid tool"
    return _message_fault(body) or _image_fault(body.get("images", []))


def wants(route: str, body: dict[str, Any]) -> list[str]:
    """The capabilities that a model needs for a request."""
    if route == "embed":
        return ["embedding"]
    images = body.get("images") or any(message.get("images") for message in body.get("messages", []))
    asked = (("tools", body.get("tools")), ("vision", images), ("thinking", body.get("think")))
    return ["completion"] + [name for name, value in asked if value]


def length_of(body: dict[str, Any]) -> int:
    """Words of the longest text that a model has to read."""
    given = body.get("input", body.get("prompt"))
    if given is None:
        given = " ".join(str(message.get("content") or "") for message in body.get("messages", []))
    return max(len(text.split()) for text in _texts(given) or [""])


def _message_fault(body: dict[str, Any]) -> str | None:
    for message in body.get("messages", []):
        if not isinstance(message, dict):
            return "json: cannot unmarshal messages into Go struct field ChatRequest.messages"
        if message.get("role") not in _ROLES:
            return f"invalid role: {message.get('role')!r}"
        if not isinstance(message.get("content", ""), str):
            return "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
        fault = _image_fault(message.get("images") or [])
        if fault:
            return fault
    return None


def _image_fault(images: list[Any]) -> str | None:
    for image in images:
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, TypeError, ValueError):
            return "illegal base64 data at input byte 4"
    return None


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    return isinstance(function, dict) and bool(function.get("name"))


def _is(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _texts(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else []
