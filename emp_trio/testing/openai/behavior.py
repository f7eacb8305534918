"""Chat completions as other servers that speak OpenAI's API answer them (real servers, section 2). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, Final, Literal

Behavior = Literal["parts", "same_index", "halves", "bare_data", "crlf"]
"""A way in which some servers differ: content is a list of parts; all tool calls have the index 0, and are told by
their ids; characters outside the first plane come in halves, each in a chunk of its own; ``data:`` lines with nothing
in them stand between the events; lines end with CRLF."""

_BARE: Final = b"data:\n\n"


def spoken(message: dict[str, Any], behavior: Collection[Behavior]) -> dict[str, Any]:
    """A message or a delta in these behavior."""
    changed = dict(message)
    if "parts" in behavior and isinstance(message.get("content"), str):
        changed["content"] = [{"type": "text", "text": message["content"]}]
    if "same_index" in behavior and "tool_calls" in message:
        changed["tool_calls"] = [call | ({"index": 0} if "index" in call else {}) for call in message["tool_calls"]]
    return changed


def split(deltas: list[dict[str, Any]], behavior: Collection[Behavior]) -> Iterator[dict[str, Any]]:
    """Deltas, of which those whose text has such characters come in single UTF-16 units where they come in halves."""
    for delta in deltas:
        text = delta.get("content")
        if "halves" not in behavior or not isinstance(text, str) or all(ord(letter) < 2**16 for letter in text):
            yield delta
            continue
        units = text.encode("utf-16-le")
        for start in range(0, len(units), 2):
            yield {"content": units[start : start + 2].decode("utf-16-le", "surrogatepass")}


def framed(chunk: Any, behavior: Collection[Behavior]) -> bytes:
    """A chunk as an event; all but ASCII is escaped, so that half a character can stand in it."""
    frame = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    if "bare_data" in behavior:
        frame = _BARE + frame
    return frame.replace(b"\n", b"\r\n") if "crlf" in behavior else frame
