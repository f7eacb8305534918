"""Validate ``input`` of a request of the Responses API (OpenAI reference 4.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from emp_trio.testing.openai.checks import Fault, choice_fault, missing
from emp_trio.testing.openai.input_image_rules import data_of

_ROLES: Final = ("user", "system", "developer", "assistant")
_MESSAGE: Final = frozenset(("type", "role", "content", "id", "status", "phase"))
_PARTS: Final = {
    "input_text": frozenset(("type", "text")),
    "input_image": frozenset(("type", "detail", "image_url", "file_id")),
    "input_file": frozenset(("type", "file_id", "file_url", "file_data", "filename", "detail")),
}


def images_of(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The images in a request's input, first to last: parts of messages, and references to earlier ones."""
    for item in _items(body):
        if item.get("type") == "image_generation_call":
            yield item
        yield from (part for _, part in _parts(item) if isinstance(part, dict) and part.get("type") == "input_image")


def input_violations(body: dict[str, Any]) -> list[str]:
    """Everything in the input that no reference documents."""
    found = []
    for item in _items(body):
        if "role" in item:
            found += [f"undocumented field {name!r} of an input message" for name in item.keys() - _MESSAGE]
            if item.get("type") != "message":
                found.append("an input message without type: message")
    found += [
        "an input_image without detail"
        for image in images_of(body)
        if image.keys() - {"type", "id"} and "detail" not in image
    ]
    return found


def input_faults(body: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong with the input."""
    given = body.get("input")
    if given is None and not body.get("previous_response_id") and not body.get("prompt"):
        yield missing("input")
    for index, item in enumerate(given if isinstance(given, list) else []):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            yield Fault(f"Invalid type for '{where}'.", where, "invalid_type")
            return
        if "role" in item and (fault := choice_fault(item["role"], _ROLES, f"{where}.role")):
            yield fault
        for number, part in _parts(item):
            yield from _part_faults(part, f"{where}.content[{number}]")


def _part_faults(part: Any, where: str) -> Iterator[Fault]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "output_text":
        return
    if fault := choice_fault(kind, tuple(_PARTS), f"{where}.type"):
        yield fault
        return
    for name in sorted(part.keys() - _PARTS[str(kind)]):
        yield Fault(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    if kind == "input_image":
        url = part.get("image_url", "")
        if not isinstance(url, str):
            yield Fault(f"Invalid type for '{where}.image_url'.", f"{where}.image_url", "invalid_type")
            return
        if bool(url) == bool(part.get("file_id")):
            yield Fault(f"'{where}' needs exactly one of image_url and file_id.", where)
        data = data_of(url, where)
        if isinstance(data, Fault):
            yield data


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _parts(item: dict[str, Any]) -> list[tuple[int, Any]]:
    content = item.get("content")
    return list(enumerate(content)) if isinstance(content, list) else []
