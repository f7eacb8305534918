"""Checks that requests of every kind share, and the error they end in. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

BOOL: Final = (bool, type(None))
INT: Final = (int, type(None))
NUMBER: Final = (int, float, type(None))
TEXT: Final = (str, type(None))
OBJECT: Final = (dict, type(None))

_GONE_TEXT_MODELS: Final = frozenset("gpt-4.1-nano o1 o3-mini o4-mini gpt-4 gpt-4-turbo gpt-3.5-turbo".split())
_REASONING: Final = re.compile(r"gpt-[5-9]|o\d")


class Fault(msgspec.Struct, frozen=True):
    """A documented error of a request: HTTP 400 with this body."""

    message: str
    param: str | None = None
    code: str | None = "invalid_value"
    type: str = "invalid_request_error"


def type_fault(body: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]]) -> Fault | None:
    """The first field of a request that has a wrong JSON type, or None."""
    for name, types in fields.items():
        if name in body and (not isinstance(body[name], types) or (bool not in types and isinstance(body[name], bool))):
            return Fault(f"Invalid type for '{name}'.", name, "invalid_type")
    return None


def missing(name: str) -> Fault:
    """The error for a required parameter that is not there."""
    return Fault(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def text_model_fault(body: Mapping[str, Any], *, api: str, effort: str | None) -> Fault | None:
    """What is wrong with the text model of a request, or with sampling parameters that it does not take (1.2, 4.1, 10).

    Args:
        api: name of the API, for the message.
        effort: reasoning effort that the request asks for.
    """
    model = body.get("model")
    if not model:
        return missing("model")
    if "image" in model or model.startswith("dall-e"):
        return Fault(f"The model '{model}' is not supported with the {api} API.", "model")
    if model in _GONE_TEXT_MODELS:
        return Fault(f"The model '{model}' does not exist or you do not have access to it.", "model", "model_not_found")
    for name in ("temperature", "top_p"):
        if body.get(name) is not None and is_reasoning(model) and effort != "none":
            return unsupported(name)
    return None


def is_reasoning(model: str) -> bool:
    """Whether a model is one of the reasoning models."""
    return _REASONING.match(model) is not None


def unsupported(name: str, advice: str = "") -> Fault:
    """The error for a parameter that this model does not take."""
    text = f"Unsupported parameter: '{name}' is not supported with this model.{advice}"
    return Fault(text, name, "unsupported_parameter")


def metadata_fault(body: Mapping[str, Any]) -> Fault | None:
    """What is wrong with ``metadata``, or None."""
    metadata = body.get("metadata") or {}
    if len(metadata) > 16:
        return Fault("metadata has more than 16 pairs.", "metadata", "object_above_max_properties")
    for key, value in metadata.items():
        if len(key) > 64 or not isinstance(value, str) or len(value) > 512:
            return Fault(f"Invalid metadata '{key}'.", f"metadata.{key}"[:80])
    return None


def choice_fault(value: Any, choices: tuple[str, ...], param: str) -> Fault | None:
    """The error for a value that is not one of ``choices``, or None."""
    if value in choices:
        return None
    return Fault(f"Invalid value: {value!r}. Supported values are: {', '.join(choices)}.", param)
