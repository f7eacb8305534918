"""The ways in which a known secret may stand in a text: as it is, and encoded as services, proxies and libraries do.
Pure.

What is looked for is a list of plain texts, so that a look at a text is a few searches for a text in a text, each of
which reads it once.
"""

from __future__ import annotations

import base64
import functools
import html
import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec

SHORTEST: Final = 4
"""A shorter secret would blank out ordinary words."""
LONGEST: Final = 4096
"""Characters of a secret that are looked for; a longer one is known by its beginning."""
PART: Final = 12
"""So many characters in a row of a long secret are masked on their own."""
_LONG: Final = 18  # characters from which on parts of a secret are looked for
_ENCODED: Final = 8  # a shorter encoded form would be found by chance


class Forms(msgspec.Struct, frozen=True):
    """What to look for.

    Attributes:
        plain: texts that may stand anywhere.
        marked: texts that need ``%``, ``&`` or a backslash, by that character.
        probes: pieces of the secret, so laid out that a part of it of 20 characters or so, or the half of a shorter
            one, has one of them; each with its place in the secret.
    """

    plain: tuple[str, ...]
    marked: tuple[tuple[str, tuple[str, ...]], ...]
    probes: tuple[tuple[str, int], ...]


@functools.lru_cache(256)
def forms(value: str) -> Forms:
    """The forms of a secret, the longest first.

    Args:
        value: the secret; one of fewer than four characters has none.
    """
    if len(value) < SHORTEST:
        return Forms((), (), ())
    value = value[:LONGEST]
    every = dict.fromkeys([value, *(form for form in _encoded(value) if len(form) >= SHORTEST)])
    ordered = sorted(every, key=len, reverse=True)
    probes = _probes(value)  # which find the whole of it, too
    plain = tuple(form for form in ordered if not (probes if form == value else _mark(form)))
    marked = {mark: tuple(f for f in ordered if _mark(f) == mark and f != value) for mark in "\\%&"}
    return Forms(plain, tuple((mark, found) for mark, found in marked.items() if found), probes)


def _mark(form: str) -> str:
    return next((mark for mark in "\\%&" if mark in form), "")


def _encoded(value: str) -> Iterator[str]:
    data = value.encode("utf-8", "replace")
    for text in (json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]):
        yield from (text, text.replace("/", "\\/"))
    yield "".join(f"\\u{unit:04x}" for unit in _units(value))
    yield "".join(f"\\u{unit:04X}" for unit in _units(value))
    once = {quote(data, safe=""), quote(data, safe="/"), quote_plus(data), quote(data, safe="!'()*")}
    once |= {_lower(text) for text in once} | {"".join(f"%{byte:02x}" for byte in data)}
    once |= {"".join(f"%{byte:02X}" for byte in data)}
    yield from sorted(once)
    yield from sorted({quote(text, safe="") for text in once if "%" in text and len(text) < 3 * len(data)})
    escaped = html.escape(value)
    yield from (escaped, escaped.replace("&#x27;", "&#39;"), html.escape(value, quote=False))
    yield escaped.replace("+", "&#43;").replace("=", "&#61;").replace("/", "&#47;")
    yield escaped.replace("+", "&#x2B;").replace("=", "&#x3D;").replace("/", "&#x2F;")
    yield "".join(f"&#{ord(c)};" for c in value)
    if len(data) * 2 >= _ENCODED + 4:
        yield from (data.hex(), data.hex().upper())
    for core in filter(lambda core: len(core) >= _ENCODED, _base64(data)):
        yield from (core, core.translate(_URL_SAFE), quote(core, safe=""), _lower(quote(core, safe="")))
        yield core.replace("/", "\\/")


_URL_SAFE: Final = str.maketrans("+/", "-_")


def _base64(data: bytes) -> Iterator[str]:
    """What of base64 is the same wherever in a longer text the secret stands, for each of three places."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        yield encoded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]


def _lower(text: str) -> str:
    """Percent escapes in small letters."""
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _units(value: str) -> list[int]:
    data = value.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def _probes(value: str) -> tuple[tuple[str, int], ...]:
    """Pieces of a long secret. A URL or a connection string has none: their parts are no secrets, and their passwords
    are known on their own."""
    if len(value) < _LONG or "://" in value or ";" in value or " " in value:
        return ()
    size = 8 if len(value) >= 26 else 6
    step = max(1, min(13, (len(value) - size) // 3))
    places = [*range(0, len(value) - size, step), len(value) - size]
    return tuple((value[place : place + size], place) for place in dict.fromkeys(places))


def parts_of(value: str, text: str, probe: str, place: int) -> Iterator[tuple[int, int]]:
    """Where parts of a secret of at least :data:`PART` characters stand in ``text``: (start, end), in order.

    Args:
        probe, place: one of ``forms(value).probes``; parts without it are not found.
    """
    at = text.find(probe)
    while at >= 0:
        start, first = at, place
        while start and first and text[start - 1] == value[first - 1]:
            start, first = start - 1, first - 1
        end, last = at + len(probe), place + len(probe)
        while end < len(text) and last < len(value) and text[end] == value[last]:
            end, last = end + 1, last + 1
        if end - start >= PART:
            yield start, end
        at = text.find(probe, end)
