"""List the forms of a known secret in text: plain, and encoded as services, proxies and libraries do. Pure.

All forms are plain strings, so a search is a few linear substring searches.
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
"""Minimum characters of a secret; a shorter one would mask ordinary words."""
LONGEST: Final = 4096
"""Maximum characters of a secret to search for; a longer secret is recognised by its beginning."""
PART: Final = 12
"""Consecutive characters of a long secret that are masked even if the rest is missing."""
_LONG: Final = 18  # minimum characters of a secret whose parts are searched for
_ENCODED: Final = 8  # minimum characters of an encoded form; shorter ones match by chance


class Forms(msgspec.Struct, frozen=True):
    """Strings to search for.

    Attributes:
        plain: strings without an escape character.
        marked: strings that contain ``%``, ``&`` or a backslash, by that character.
        probes: substrings of the secret with their positions, spaced so that any part of about 20 characters, or half
            of a shorter secret, contains one.
    """

    plain: tuple[str, ...]
    marked: tuple[tuple[str, tuple[str, ...]], ...]
    probes: tuple[tuple[str, int], ...]


@functools.lru_cache(256)
def forms(value: str) -> Forms:
    """Return the forms of a secret, longest first.

    Args:
        value: the secret; fewer than four characters have no forms.
    """
    if len(value) < SHORTEST:
        return Forms((), (), ())
    value = value[:LONGEST]
    every = dict.fromkeys([value, *(form for form in _encoded(value) if len(form) >= SHORTEST)])
    ordered = sorted(every, key=len, reverse=True)
    probes = _probes(value)  # these find the complete secret, too
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
    """Yield the part of the base64 form that is independent of the surrounding text, for each of three alignments."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        yield encoded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]


def _lower(text: str) -> str:
    """Convert percent escapes to lower case."""
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def _units(value: str) -> list[int]:
    data = value.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def _probes(value: str) -> tuple[tuple[str, int], ...]:
    """Return the probes of a long secret.

    URLs and connection strings have none: most of their parts are not secret, and their passwords are registered
    separately.
    """
    if len(value) < _LONG or "://" in value or ";" in value or " " in value:
        return ()
    size = 8 if len(value) >= 26 else 6
    step = max(1, min(13, (len(value) - size) // 3))
    places = [*range(0, len(value) - size, step), len(value) - size]
    return tuple((value[place : place + size], place) for place in dict.fromkeys(places))


def parts_of(value: str, text: str, probe: str, place: int) -> Iterator[tuple[int, int]]:
    """Yield the spans (start, end) in ``text`` of parts of a secret of at least :data:`PART` characters, in order.

    Args:
        probe, place: one of ``forms(value).probes``; only parts that contain it are found.
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
