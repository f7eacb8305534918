"""JSON as services write it, read by one decoder: strict and quick first, tolerant where that fails. Pure.

Everything that a service says is read here; what we write ourselves, and what a job says, is not. What real services
write that no standard allows is in the reference of real servers, sections 1 and 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.secrets import excerpt as masked_excerpt
from emp_trio.secrets import excerpt_around

_BEFORE, _AFTER = 60, 120  # characters that are quoted before and after the place where an answer breaks
_HALF: Final = re.compile(r"[\ud800-\udfff]")
_HALF_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_CHARSET: Final = re.compile(r"""(?i)charset\s*=\s*["']?([\w.:-]{1,40})""")
_LONGEST_INTEGER: Final = 4300  # digits; Python reads and writes no longer ones (sys.int_info)


def decode_json(data: bytes | str, *, charset: str | None = None, keep_halves: bool = False) -> Any:
    """What a service says, as a JSON value.

    Read besides JSON proper: a byte order mark; UTF-16 and UTF-32; bytes that are no text, as U+FFFD; raw control
    characters in a text; ``NaN`` and ``Infinity`` of Python's json, and numbers too large for one, as None, because
    that is what such a number becomes when it is written as JSON again. Halves of surrogate pairs are joined, and one
    without its other half becomes U+FFFD. Of two members of one name the last counts.

    Args:
        data: the whole text.
        charset: of bytes, where the service named one; used where they are not UTF-8. None: what they look like.
        keep_halves: leave single halves as they are, because the other half may stand in the next piece of a stream.
            Such a text can't be encoded: give the joined pieces to :func:`join_halves` before they go anywhere.

    Raises:
        ServiceError: response_error, ``invalid_response_format``; it is broken, or nested too deeply. It is quoted.
    """
    try:
        return msgspec.json.decode(data)
    except RecursionError as error:
        raise _too_deep() from error
    except (msgspec.DecodeError, UnicodeError):
        return _tolerant(_as_text(data, charset), keep_halves=keep_halves)


def join_halves(value: Any) -> Any:
    """A JSON-like value whose texts can be encoded: surrogate halves are joined, single ones become U+FFFD.

    What has no halves is returned as it is. Raises ServiceError where it is nested too deeply.
    """
    try:
        return _joined(value)
    except RecursionError as error:
        raise _too_deep() from error


def _as_text(data: bytes | str, charset: str | None) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding, "surrogatepass")  # some write each half of a pair as three bytes
    except UnicodeDecodeError:
        return data.decode(charset or encoding, "replace")


def _tolerant(text: str, *, keep_halves: bool) -> Any:
    try:
        value = _DECODER.decode(text)
        if _HALF_ESCAPE.search(text) is None and _HALF.search(text) is None:
            return value
        return _joined(value, keep=keep_halves)
    except RecursionError as error:
        raise _too_deep() from error
    except json.JSONDecodeError as error:
        raise _unreadable(_broken(text, error)) from error


def declared_charset(headers: Mapping[str, str]) -> str | None:
    """The character set that a content type names, where Python knows it; ``headers`` have names in lower case."""
    match = _CHARSET.search(headers.get("content-type", ""))
    if match is None:
        return None
    try:
        b" ".decode(match[1])
    except (LookupError, ValueError):  # unknown, or no text encoding
        return None
    return match[1]


def utf8_text(data: bytes) -> str:
    """Bytes as text, of which what is no UTF-8 is U+FFFD. It may have halves of surrogate pairs: some services write
    each as three bytes."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def excerpt(data: bytes | str, *, longest: int = _BEFORE + _AFTER) -> str:
    """The beginning of what a service said, in quotation marks, without what looks secret."""
    text = data if isinstance(data, str) else utf8_text(data[: 2**16])
    return repr(masked_excerpt(text, longest)) + ("..." if len(text) > longest else "")


def _joined(value: Any, *, keep: bool = False) -> Any:
    match value:
        case str():
            if value.isascii() or _HALF.search(value) is None:
                return value
            return value.encode("utf-16-le", "surrogatepass").decode(
                "utf-16-le", "surrogatepass" if keep else "replace"
            )
        case dict():
            return {_joined(key, keep=keep): _joined(item, keep=keep) for key, item in value.items()}
        case list():
            return [_joined(item, keep=keep) for item in value]
        case _:
            return value


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) != float("inf") else None


_DECODER: Final = json.JSONDecoder(parse_constant=lambda _: None, parse_int=_integer, parse_float=_float, strict=False)


def _broken(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "nothing, where JSON was expected"
    start = max(0, error.pos - _BEFORE)
    shown = excerpt_around(text, error.pos, before=_BEFORE, after=_AFTER)
    return (
        f"what the service said is not JSON: {error.msg} at character {error.pos} of {len(text)}: "
        f"{'...' if start else ''}{shown!r}{'...' if error.pos + _AFTER < len(text) else ''}"
    )


def _too_deep() -> ServiceError:
    return _unreadable("JSON that is nested too deeply to be read")


def _unreadable(text: str) -> ServiceError:
    return ServiceError(text, type="response_error", reason="invalid_response_format", retry=True, maybe_started=True)
