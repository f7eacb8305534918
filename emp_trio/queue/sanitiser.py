"""Texts without file bytes: long runs of base64 are taken out of what goes to Redis. Pure.

Source: queue protocol 5.5 and 8.4. Unlike the fleet's sanitiser this one looks into arrays too, and leaves URLs alone.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from emp_trio.sizes import LARGE

RECORD_RUN: Final = 100  # characters of base64 in a row that count as file bytes, in the fleet's records
_URL: Final = re.compile(r"(?:https?|file)://\S{1,4096}")
_REMOVED: Final = "[BASE64_DATA_REMOVED]"
_REST: Final = re.compile(r"[A-Za-z0-9+/]*+={0,2}")
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ALIKE: Final = bytes(ord("A") if byte in _ALPHABET else ord(" ") for byte in range(256))
_encode: Final = msgspec.json.Encoder().encode


def sanitised(encoded: bytes, *, shortest: int = RECORD_RUN) -> str:
    """JSON text without long runs of base64 characters and without ``image_base64`` values, at any depth, also in
    texts that are JSON themselves.

    Args:
        encoded: valid JSON.
        shortest: characters from which on a run counts.
    """
    if b"image_base64" not in encoded and not _has_run(encoded, shortest):
        return encoded.decode()
    return _encode(_without_bytes(msgspec.json.decode(encoded), shortest)).decode()


def without_file_bytes(value: Any, *, shortest: int = RECORD_RUN) -> Any:
    """A copy of a JSON-like value as :func:`sanitised` leaves it; long texts are looked through in pieces."""
    return _without_bytes(value, shortest)


def sanitised_text(text: str, *, shortest: int = RECORD_RUN) -> str:
    """A text without long runs of base64 characters. A long one is looked through in pieces, so that a thread that
    does it lets others run."""
    run = _run(shortest)
    if len(text) <= LARGE:
        return run.sub(_REMOVED, text)
    parts, end, place = [], 0, 0
    while place < len(text):
        limit = min(place + LARGE + shortest, len(text))
        found = run.search(text, place, limit)
        if found is None:
            place = limit if limit == len(text) else limit - shortest
            continue
        stop = found.end()
        while stop == limit < len(text):  # it goes on in the next piece
            limit = min(stop + LARGE, len(text))
            more = _REST.match(text, stop, limit)
            stop = more.end() if more is not None else stop
        parts += [text[end : found.start()], _REMOVED]
        end = place = stop
    return "".join([*parts, text[end:]])


def _has_run(encoded: bytes, shortest: int) -> bool:
    """Whether so many characters of base64 stand in a row; on the way of every job, and a sixth of a search by rule."""
    return len(encoded) >= shortest and b"A" * shortest in encoded.translate(_ALIKE)


@functools.cache
def _run(shortest: int) -> re.Pattern[str]:
    return re.compile(f"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{shortest},}}+={{0,2}}")


def _without_bytes(value: Any, run: int) -> Any:
    match value:
        case dict():
            return {
                k: "[BASE64_IMAGE_REMOVED]" if k == "image_base64" and isinstance(v, str) else _without_bytes(v, run)
                for k, v in value.items()
            }
        case list() | tuple():
            return [_without_bytes(v, run) for v in value]
        case str():
            return _text_without_bytes(value, run)
        case _:
            return value


def _text_without_bytes(text: str, run: int) -> str:
    if _URL.fullmatch(text):
        return text
    if text.lstrip()[:1] in ("{", "["):
        try:
            inner = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # not JSON after all
        else:
            clean = _without_bytes(inner, run)
            return text if clean == inner else _encode(clean).decode()
    return sanitised_text(text, shortest=run)
