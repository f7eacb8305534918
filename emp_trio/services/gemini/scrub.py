"""Requests and answers of Gemini as they may be kept: without files and signatures (Gemini reference A8). Pure."""

from __future__ import annotations

from typing import Any, Final

from emp_trio.services.redaction import DEEPEST, redacted

_SIGNATURES: Final = frozenset(("thoughtSignature", "thought_signature", "signature"))


def scrubbed(value: Any) -> Any:
    """A copy of JSON-like ``value`` in which ``data`` and signatures are replaced by a note, whatever their length, and
    everything else is as :func:`emp_trio.services.redaction.redacted` leaves it."""
    return redacted(_without_data(value, DEEPEST))


def _without_data(value: Any, depth: int) -> Any:
    """By name and not by look: nobody reads through 20 MB of base64 only to throw them away."""
    match value:
        case dict() if depth:
            return {name: _note(name, item) or _without_data(item, depth - 1) for name, item in value.items()}
        case list() if depth:
            return [_without_data(item, depth - 1) for item in value]
        case _:
            return value


def _note(name: Any, item: Any) -> str:
    if not isinstance(item, str) or not item or item.startswith("<"):  # which no base64 does, but our own notes
        return ""
    if name == "data":
        return f"<base64 data, {len(item.rstrip('=')) * 3 // 4} bytes>"
    return "<signature>" if name in _SIGNATURES else ""
