"""Copies of requests and payloads that may be kept: no file bytes, no secrets (OpenAI reference 14, invariants 6, 7).
Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from emp_trio.secrets import MASK, Redactor

_SHAPES: Final = Redactor()
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[\w;=.+-]*;base64,([A-Za-z0-9+/=_\s-]*)")
_SECRET_NAMES: Final = frozenset(
    "authorization api-key apikey x-api-key x-goog-api-key cookie set-cookie password accountkey storagekey".split()
)
DEEPEST: Final = 100
"""Levels of a value that are shown. A payload or an answer may have nearly as many as Python can recurse."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")


def redacted(value: Any) -> Any:
    """A copy of JSON-like ``value`` in which data URLs and long base64 texts are replaced by their kind and size, and
    secrets by ``***``.

    A base64 text is one of at least 256 characters that is base64 from end to end; prose, paths and URLs stay. A secret
    is what has the shape of one (see :class:`emp_trio.secrets.Redactor`) or stands under a name such as
    ``authorization``. What lies deeper than 100 levels is left out.
    """
    return _redacted(value, DEEPEST)


def _redacted(value: Any, depth: int) -> Any:
    match value:
        case str():
            return _text(value)
        case dict() | list() | tuple() if not depth:
            return "<nested too deeply>"
        case dict():
            return {
                key: MASK if _is_secret(key) and item else _redacted(item, depth - 1) for key, item in value.items()
            }
        case list() | tuple():
            return [_redacted(item, depth - 1) for item in value]
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _:
            return value


def _text(text: str) -> str:
    if "base64," in text:
        text = _DATA_URL.sub(lambda m: _note(m[1] or "data", m[2]), text)
    if len(text) >= 256 and _BASE64.fullmatch(stripped := "".join(text.split())) and " " not in text.strip():
        return _note("data", stripped)
    return _SHAPES.text(text)


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and name.lower().replace("_", "-") in _SECRET_NAMES


def _note(kind: str, base64: str) -> str:
    return f"<base64 {kind}, {len(base64.rstrip('=')) * 3 // 4} bytes>"
