"""Texts without file bytes: long runs of base64 are taken out of what goes to Redis. Pure.

Source: queue protocol 5.5 and 8.4. Unlike the fleet's sanitiser this one looks into arrays too, and leaves URLs alone.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

RECORD_RUN: Final = 100  # characters of base64 in a row that count as file bytes, in the fleet's records
_URL: Final = re.compile(r"(?:https?|file)://\S{1,4096}")
_REMOVED: Final = "[BASE64_DATA_REMOVED]"
_encode: Final = msgspec.json.Encoder().encode


def sanitised(encoded: bytes, *, shortest: int = RECORD_RUN) -> str:
    """JSON text without long runs of base64 characters and without ``image_base64`` values, at any depth, also in
    texts that are JSON themselves.

    Args:
        encoded: valid JSON.
        shortest: characters from which on a run counts.
    """
    if b"image_base64" not in encoded and not _run_bytes(shortest).search(encoded):
        return encoded.decode()
    return _encode(_without_bytes(msgspec.json.decode(encoded), _run(shortest))).decode()


def sanitised_text(text: str, *, shortest: int = RECORD_RUN) -> str:
    """A text without long runs of base64 characters."""
    return _run(shortest).sub(_REMOVED, text)


@functools.cache
def _run_bytes(shortest: int) -> re.Pattern[bytes]:
    return re.compile(f"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{shortest}}}".encode())


@functools.cache
def _run(shortest: int) -> re.Pattern[str]:
    return re.compile(f"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{{{shortest},}}+={{0,2}}")


def _without_bytes(value: Any, run: re.Pattern[str]) -> Any:
    match value:
        case dict():
            return {
                k: "[BASE64_IMAGE_REMOVED]" if k == "image_base64" and isinstance(v, str) else _without_bytes(v, run)
                for k, v in value.items()
            }
        case list():
            return [_without_bytes(v, run) for v in value]
        case str():
            return _text_without_bytes(value, run)
        case _:
            return value


def _text_without_bytes(text: str, run: re.Pattern[str]) -> str:
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
    return run.sub(_REMOVED, text)
