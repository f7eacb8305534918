"""Copies of requests and payloads that may be kept: file bytes taken out (OpenAI reference 14, invariant 7). Pure."""

from __future__ import annotations

import re
from typing import Any, Final

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[\w;=.+-]*;base64,([A-Za-z0-9+/=_\s-]*)")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")


def without_file_bytes(value: Any) -> Any:
    """A copy of JSON-like ``value`` in which data URLs and long base64 texts are replaced by their kind and size.

    A base64 text is one of at least 256 characters that is base64 from end to end; prose, paths and URLs stay.
    """
    match value:
        case str():
            return _text(value)
        case dict():
            return {key: without_file_bytes(item) for key, item in value.items()}
        case list() | tuple():
            return [without_file_bytes(item) for item in value]
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _:
            return value


def _text(text: str) -> str:
    if "base64," in text:
        text = _DATA_URL.sub(lambda m: _note(m[1] or "data", m[2]), text)
    if len(text) >= 256 and _BASE64.fullmatch(stripped := "".join(text.split())) and " " not in text.strip():
        return _note("data", stripped)
    return text


def _note(kind: str, base64: str) -> str:
    return f"<base64 {kind}, {len(base64.rstrip('=')) * 3 // 4} bytes>"
