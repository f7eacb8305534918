"""Script of the fake Ollama, and the lines and responses it generates. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]

_NANO: Final = 1_000_000_000
_WORDS: Final = re.compile(r"(?= )")


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How work goes.

    Attributes:
        load: seconds before the first piece, as for a model that comes from disk.
        pause: seconds before each line.
        text: the answer; it comes word by word.
        thinking: thoughts before it, word by word, unless the request has ``think: false``.
        tool_calls: asked for after the text.
        done_reason: how the answer ends.
        parts: words come as a list of parts, as some servers that speak Ollama's language send them.
        cached: the prompt was in the cache: its counter is left out, as zero is.
        error: an ``{"error": ...}`` line instead of the rest, after ``error_after`` lines.
        cut_after: lines after which the answer ends without its last one.
        stall_after: lines after which nothing comes any more.
        dimensions: length of an embedding.
    """

    load: Seconds = 0.0
    pause: Seconds = 0.0
    text: str = "A fake answer that costs nothing and knows nothing."
    thinking: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    done_reason: str = "stop"
    parts: bool = False
    cached: bool = False
    error: str | None = None
    error_after: int = 0
    cut_after: int | None = None
    stall_after: int | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] = 8


def pieces(text: str) -> list[str]:
    """A text word by word, with its spaces."""
    return [word for word in _WORDS.split(text) if word]


def answer_lines(script: Script, model: str, *, chat: bool) -> Iterator[dict[str, Any]]:
    """Every line of an answer in words."""
    head = {"model": model, "created_at": "2026-11-01T00:00:00.000000Z"}

    def line(*, done: bool = False, **part: Any) -> dict[str, Any]:
        if chat:
            return head | {"message": {"role": "assistant", "content": ""} | part, "done": done}
        return head | {"response": part.pop("content", "")} | part | {"done": done}

    for piece in pieces(script.thinking):
        yield line(thinking=piece)
    for piece in pieces(script.text):
        yield line(content=[{"type": "text", "text": piece}] if script.parts else piece)
    if script.tool_calls:
        yield line(tool_calls=script.tool_calls)
    count = len(pieces(script.thinking)) + len(pieces(script.text))
    writing = count * script.pause
    last: dict[str, Any] = {
        "done_reason": script.done_reason,
        "total_duration": int((script.load + writing + 0.01) * _NANO),
        "load_duration": int(script.load * _NANO),
        "prompt_eval_count": 0 if script.cached else 11,
        "prompt_eval_duration": int(0.01 * _NANO),
        "eval_count": count,
        "eval_duration": int(writing * _NANO),
    }
    yield line(done=True) | {name: value for name, value in last.items() if value}  # zero is left out (B3)


def whole_answer(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What comes instead of the lines where ``stream`` is false."""
    parts = [line.get("message", line) for line in lines]
    name = "content" if "message" in lines[-1] else "response"
    said = [part.get(name) or "" for part in parts]
    joined: dict[str, Any] = {name: "".join(piece if isinstance(piece, str) else piece[0]["text"] for piece in said)}
    for part in parts:
        if part.get("tool_calls"):
            joined["tool_calls"] = part["tool_calls"]
    thoughts = "".join(part.get("thinking", "") for part in parts)
    joined |= {"thinking": thoughts} if thoughts else {}
    last = lines[-1]
    return last | ({"message": last["message"] | joined} if name == "content" else joined)


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector that depends on the text alone."""
    seed = hashlib.sha256(text.encode()).digest()
    return [round(seed[i % len(seed)] / 255 - 0.5, 6) for i in range(dimensions)]


def pull_lines(model: str, layers: list[int], have: dict[str, int], *, steps: int = 4) -> Iterator[dict[str, Any]]:
    """Every line of a download; ``have`` keeps what is there of each file, so that a broken one goes on."""
    yield {"status": "pulling manifest"}
    for number, total in enumerate(layers):
        digest = "sha256:" + hashlib.sha256(f"{model} {number}".encode()).hexdigest()
        told = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
        yield told | ({"completed": have[digest]} if digest in have else {})
        while have.get(digest, 0) < total:
            have[digest] = min(total, have.get(digest, 0) + max(1, total // steps))
            yield told | {"completed": have[digest]}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    yield {"status": "success"}
