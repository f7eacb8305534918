"""Copies of requests and payloads that may be kept: no file bytes, no secrets (OpenAI reference 14).
Pure, and linear in what is copied. Long texts are looked through in slices, so that others run beside a thread that
does it; connectors say :func:`kept_copy`, which takes one where there is much to look through.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from emp_trio.offload import off_loop, weight
from emp_trio.secrets import MASK, Redactor, distinct, excerpt, harmless
from emp_trio.secrets.names import is_headers_name, is_secret_name, named_secret
from emp_trio.sizes import LARGE

_REDACTOR: Final = Redactor()
DEEPEST: Final = 100
"""Levels of a value that are shown. A payload or an answer may have nearly as many as Python can recurse."""
_LONGEST_QUOTED: Final = 16 * 2**10  # characters of a text in an error that are looked at
_MARK: Final = ";base64,"
_HEADER: Final = re.compile(r"data:([\w.+-]++/[\w.+-]++)?[\w;=.+-]*+")
_LONGEST_HEADER: Final = 256  # characters of a data URL before its mark
_IN_DATA_URL: Final = re.compile(r"[A-Za-z0-9+/=_\s-]*+")
_IN_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\t\n\v\f\r-]*+")
_END_OF_BASE64: Final = re.compile(r"={0,2}\s{0,64}")
_SHORTEST: Final = 256  # characters of base64 that are taken for a file


def redacted(value: Any) -> Any:
    """A copy of JSON-like ``value`` in which data URLs and long base64 texts are replaced by their kind and size, and
    secrets by ``***``.

    A base64 text is one of at least 256 characters that is base64 from end to end; prose, paths and URLs stay. A secret
    is what this process holds, what has the shape of one (see :class:`emp_trio.secrets.Redactor`), what stands under a
    name such as ``authorization`` or beside it (``{"name": "token", "value": ...}``), and what is in a header of which
    nobody knows that it is harmless. What lies deeper than 100 levels is left out.
    """
    return _redacted(value, DEEPEST)


def excerpt_of(value: Any, limit: int) -> str:
    """The beginning of a JSON-like value as JSON, for an error: as :func:`redacted`, and cut then. Of a large value no
    more is looked at than is shown."""
    return excerpt(msgspec.json.encode(redacted(_beginning(value, [limit], DEEPEST))).decode(), limit)


def _beginning(value: Any, left: list[int], depth: int) -> Any:
    """A copy of a value that ends where about ``left`` characters of it have been copied."""
    match value:
        case str():
            text = excerpt(value, _LONGEST_QUOTED).encode("utf-8", "replace").decode()
            left[0] -= len(text)
            return text
        case dict() | list() | tuple() if not depth:
            return "<nested too deeply>"
        case dict():
            made = {}
            for name, item in value.items():
                if left[0] <= 0:
                    break
                left[0] -= len(name)
                made[excerpt(name, _LONGEST_QUOTED)] = _beginning(item, left, depth - 1)
            return made
        case list() | tuple():
            items = []
            for item in value:
                if left[0] <= 0:
                    break
                left[0] -= 2
                items.append(_beginning(item, left, depth - 1))
            return items
        case int() if abs(value) >= 2**63:  # which can't be written
            return str(value)
        case _:
            left[0] -= 4
            return value


async def kept_copy(value: Any) -> Any:
    """:func:`redacted`, off the event loop where ``value`` is large."""
    return await off_loop(weight(value), redacted, value)


def _redacted(value: Any, depth: int, *, headers: bool = False) -> Any:
    match value:
        case str():
            return _text(value)
        case dict() | list() | tuple() if not depth:
            return "<nested too deeply>"
        case dict():
            beside = named_secret(value)
            return distinct(
                (
                    _text(name) if isinstance(name, str) else name,
                    MASK
                    if (_is_secret(name) and item and item is not True)
                    or (beside and name == "value")
                    or (headers and not harmless(name, item))
                    else _redacted(item, depth - 1, headers=isinstance(name, str) and is_headers_name(name)),
                )
                for name, item in value.items()
            )
        case list() | tuple() if named_secret(value):
            return [value[0], MASK]
        case list() | tuple():
            return [_redacted(item, depth - 1) for item in value]
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _:
            return value


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and is_secret_name(name)


def _text(text: str) -> str:
    if _MARK in text:
        text = _without_data_urls(text)
    if len(text) >= _SHORTEST and (size := _size_of_base64(text)):
        return _note("data", size)
    return _REDACTOR.text(text)


def _without_data_urls(text: str) -> str:
    """Found by their mark, and read backwards from it: a header is never read twice."""
    parts, end = [], 0
    at = text.find(_MARK)
    while at >= 0:
        after = at + len(_MARK)
        window = max(end, at - _LONGEST_HEADER)
        start = text.rfind("data:", window, at)
        header = _HEADER.fullmatch(text, start, at) if start >= 0 else None
        if header is not None:
            stop = _run(_IN_DATA_URL, text, after)
            size = stop - after - (2 if text.endswith("==", after, stop) else text.endswith("=", after, stop))
            parts += [text[end:start], _note(header[1] or "data", size)]
            end = after = stop
        at = text.find(_MARK, after)
    return "".join([*parts, text[end:]])


def _size_of_base64(text: str) -> int:
    """Number of base64 characters in a text that is nothing else, but for line breaks in it and blanks around it; 0
    where it is something else."""
    start = len(text[:64]) - len(text[:64].lstrip())
    stop = _run(_IN_BASE64, text, start)
    if len(text) - stop > 64 or not _END_OF_BASE64.fullmatch(text, stop):
        return 0
    size = stop - start - sum(text.count(blank, start, stop) for blank in "\t\n\v\f\r")
    return size if size >= _SHORTEST else 0


def _run(run: re.Pattern[str], text: str, start: int) -> int:
    """Where a run of characters that begins at ``start`` ends."""
    while True:
        limit = start + LARGE
        found = run.match(text, start, limit)
        stop = found.end() if found is not None else start
        if stop < limit:
            return stop
        start = stop


def _note(kind: str, size: int) -> str:
    return f"<base64 {kind}, {size * 3 // 4} bytes>"
