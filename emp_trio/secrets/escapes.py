"""Decode percent escapes, HTML entities and backslash escapes, and map positions back. Pure, linear in the text.

A secret has too many escaped forms to list (``/`` is ``%2F``, ``%2f``, ``%252F``, ``&#47;``, ``&#x2f;``, ``&sol;``,
``\\/``, ``\\u002f``, ``\\x2f``), so the text is decoded instead.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

ROUNDS: Final = 4
"""Maximum number of decoding passes, for text that was escaped several times."""
WIDEST: Final = 10
"""Maximum characters of one escape, except for leading zeros."""

_ESCAPE: Final = re.compile(
    r"%[0-7][0-9A-Fa-f]|%[C-Fc-f][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){1,3}"
    r"|&(?:#[0-9]{1,8}|#[xX][0-9A-Fa-f]{1,8}|[A-Za-z][A-Za-z0-9]{1,30});"
    r"|\\u[dD][89ABab][0-9A-Fa-f]{2}\\u[dD][C-Fc-f][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}"
    r"|\\x[C-Fc-f][0-9A-Fa-f](?:\\x[89ABab][0-9A-Fa-f]){1,3}|\\x[0-9A-Fa-f]{2}"
    r"""|\\["'\\/bfnrt]"""
)
_CUT: Final = re.compile(
    r"(?:%(?:25)?[0-9A-Fa-f]?|&(?:#?[0-9A-Za-z]{0,9})|\\{1,8}(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?)\Z"
)

_SIMPLE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} | {c: c for c in "\"'\\/"}

Span = tuple[int, int]


def escapes_for(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return strings of which at least one occurs in any text that contains one of ``secrets`` partly escaped.

    A backslash before a quote, frequent in nested JSON, is included only if a secret contains that character.
    """
    every = "".join(secrets)
    if not every:
        return ()
    return ("%", "&", "\\u", "\\x", *(f"\\{letter}" for letter, meant in _SIMPLE.items() if meant in every))


def readings(text: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Decode the escapes of ``text`` repeatedly, until none are left.

    Yields:
        the decoded text, and the texts it was decoded from, the original first, for :func:`in_original`.
    """
    before: list[str] = []
    for _ in range(ROUNDS):
        read = _ESCAPE.sub(_read, text)
        if len(read) == len(text):  # each escape is longer than its character
            return
        before.append(text)
        yield read, tuple(before)
        text = read


def in_original(before: Sequence[str], spans: list[Span]) -> list[Span]:
    """Map spans of a decoded text to the original text. A partly covered escape is covered as a whole.

    Args:
        before: texts from :func:`readings`.
        spans: (start, end) in the decoded text.
    """
    for text in reversed(before):
        spans = _moved(text, merged(spans))
    return merged(spans)


def merged(spans: list[Span]) -> list[Span]:
    """Sort spans and merge those that overlap."""
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def without_cut_escape(text: str) -> str:
    """Remove an incomplete escape from the end of a shortened text."""
    tail = text[-16:]
    found = _CUT.search(tail)
    return text if found is None else text[: len(text) - len(tail) + found.start()]


def _moved(text: str, spans: list[Span]) -> list[Span]:
    moved: list[Span] = []
    waiting = iter(spans)
    span = next(waiting, None)
    start: int | None = None
    behind = 0  # offset of positions in ``text`` from those in the decoded text
    for escape in _ESCAPE.finditer(text):
        read = escape.start() - behind
        after = read + len(_read(escape))
        while span is not None:
            if start is None:
                if span[0] >= after:
                    break
                start = span[0] + behind if span[0] < read else escape.start()
            if span[1] > after:
                break
            moved.append((start, span[1] + behind if span[1] <= read else escape.end()))
            start, span = None, next(waiting, None)
        if span is None:
            return moved
        behind = escape.end() - after
    while span is not None:
        moved.append((span[0] + behind if start is None else start, span[1] + behind))
        start, span = None, next(waiting, None)
    return moved


def _read(escape: re.Match[str]) -> str:
    return _character(escape[0])


@functools.lru_cache(4096)
def _character(escape: str) -> str:
    if escape[0] == "&":
        read = html.unescape(escape)
        return read if len(read) < len(escape) else "?"
    if escape[0] == "%":
        return _of_bytes(escape.replace("%", ""))
    if escape[1] == "u":
        return bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be", "replace")
    if escape[1] == "x":
        return _of_bytes(escape.replace("\\x", ""))
    return _SIMPLE[escape[1]]


def _of_bytes(digits: str) -> str:
    data = bytes.fromhex(digits)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
