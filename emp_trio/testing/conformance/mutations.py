"""Choose disturbances of an exchange: positions to cut at and values to change. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

_EDGES: Final = re.compile(rb"\r\n\r\n|\n\n|\r\n|\n|[{}\[\]]")
_ANSWER: Final = re.compile(rb"HTTP/1\.[01] \d")
_WRONG: Final[tuple[Any, ...]] = (None, 7, "wrong", [], {}, True)
_SMALL: Final = 4096  # bytes of which each is a place


def sampled(items: Sequence[T], limit: int | None) -> list[T]:
    """At most ``limit`` of the items, evenly spread, with the first and the last; all for None."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def cut_places(exchange: bytes, limit: int | None) -> list[int]:
    """Numbers of bytes after which to cut what a service sends: of each HTTP answer (or of the whole of something else)
    every byte of a small one; of a large one the ends of lines, heads and JSON parts, and an even spread between them.

    Args:
        limit: about so many at most, shared out evenly among the answers; None for all.
    """
    starts = sorted({0, *(found.start() for found in _ANSWER.finditer(exchange))})
    answers = list(zip(starts, [*starts[1:], len(exchange)], strict=True))
    if limit is not None:
        answers = sampled(answers, limit // 3)
    places: list[int] = []
    for start, end in answers:
        places += sampled(_places(exchange, start, end), None if limit is None else limit // len(answers))
    return places


def _places(exchange: bytes, start: int, end: int) -> list[int]:
    if end - start <= _SMALL:
        return list(range(start, end))
    edges = {place for found in _EDGES.finditer(exchange, start, end) for place in found.span() if place < end}
    return sorted(edges | set(sampled(range(start, end), _SMALL)))


def wrong_bodies(body: bytes, content_type: str) -> list[bytes]:
    """Copies of a JSON body, JSON lines or server-sent events, in each of which one value has another type or is
    missing; none for other bodies."""
    lines = body.split(b"\n") if "ndjson" in content_type or "event-stream" in content_type else [body]
    found = []
    for number, line in enumerate(lines):
        prefix = b"data: " if line.startswith(b"data: ") else b""
        try:
            value = msgspec.json.decode(line.removeprefix(prefix))
        except msgspec.DecodeError:
            continue
        for wrong in wrong_values(value):
            changed = prefix + msgspec.json.encode(wrong)
            found.append(b"\n".join([*lines[:number], changed, *lines[number + 1 :]]))
    return found


def other_labels(body: bytes, content_type: str) -> list[tuple[bytes, str]]:
    """The same answer under other media types, and as JSON with what some servers put around it; none for what is
    neither JSON nor a stream of it."""
    if not re.search("json|event-stream", content_type):
        return []
    labels = ["text/plain", "application/octet-stream", "", "text/event-stream", "application/json; charset=latin-1"]
    found = [(body, label) for label in labels]
    if "event-stream" not in content_type:
        found += [(b"\xef\xbb\xbf" + body, content_type), (b"\r\n " + body + b"\n\n", "text/html; charset=utf-8")]
    return found


def said_in(body: bytes, content_type: str) -> Any:
    """The value of a JSON answer, the list of those of a stream of them, or None for other answers."""
    try:
        if "event-stream" in content_type:
            lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: {")]
        elif "ndjson" in content_type:
            lines = body.splitlines()
        else:
            return msgspec.json.decode(body)
        return [msgspec.json.decode(line) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def saying(value: Any, content_type: str) -> bytes:
    """The body of an answer that says ``value``: a list of values is a stream where the usual answer is one."""
    if isinstance(value, list) and "event-stream" in content_type:
        return b"".join(b"data: " + msgspec.json.encode(item) + b"\n\n" for item in value) + b"data: [DONE]\n\n"
    if isinstance(value, list) and "ndjson" in content_type:
        return b"".join(msgspec.json.encode(item) + b"\n" for item in value)
    return msgspec.json.encode(value)


def wrong_values(value: Any) -> Iterator[Any]:
    """Copies of a JSON value in each of which one part, itself included, has another type or is missing."""
    yield from (wrong for wrong in _WRONG if type(wrong) is not type(value))
    match value:
        case dict():
            for key, item in value.items():
                yield {name: part for name, part in value.items() if name != key}
                yield from ({**value, key: wrong} for wrong in wrong_values(item))
        case list():
            for index, item in enumerate(value[:3]):
                yield from ([*value[:index], wrong, *value[index + 1 :]] for wrong in wrong_values(item))
