"""Reduce a response for the result: without image bytes (OpenAI reference 14). Pure."""

from __future__ import annotations

from typing import Any, Final

from emp_trio.services.openai.responses.answer import Answer
from emp_trio.services.redaction import redacted

_BYTES: Final = frozenset(("b64_json", "partial_image_b64"))


def raw_output(answer: Answer) -> Any:
    """``data.raw_output`` of a result (connector reference 4.6): what it sent, images and secrets replaced.

    Images are known by their places, however small they are; what else looks like a file, by its looks.
    """
    return redacted(_without_images(dict(answer.raw)))


def _without_images(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_images(item) for item in value]
    if not isinstance(value, dict):
        return value
    places = _BYTES | {"result"} if value.get("type") == "image_generation_call" else _BYTES
    return {
        name: _size(item) if name in places and isinstance(item, str) else _without_images(item)
        for name, item in value.items()
    }


def _size(data: str) -> str:
    return f"<base64 image, {len(data.rstrip('=')) * 3 // 4} bytes>"
