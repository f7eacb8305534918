"""Foreign text in the paths of URLs: one segment, quoted; a whole path, made plain; and what climbs out. Pure.

A server may decode a path more often than once, take ``;`` for the beginning of parameters and ``\\`` for a slash, and
drop what is left of a dot segment then: ``/..;/``, ``/%252e%252e/`` and ``/..%5c`` lead out of the place below which a
call has to stay. So a path is decoded here to its end, and what would go away by that is refused, not repaired.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote, unquote_to_bytes

_ROUNDS: Final = 4  # of decoding; nobody who means well needs more than one
_BREAKS: Final = re.compile(r"[/\\;\x00]")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_OLD_ESCAPE: Final = re.compile(r"%u([0-9A-Fa-f]{4})", re.IGNORECASE)  # of IIS and others of its age
_SAFE: Final = "-._~!$&'()*+,=:@"


def segment(text: str) -> str:
    """Any text as one segment of a path, and nothing but that. One that is a dot segment all the same is refused when
    the call is made (:func:`climbs`)."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def climbs(path: str) -> bool:
    """Whether a server might take a part of ``path`` for a dot segment, after any number of decodings."""
    if "." not in path and "%" not in path:
        return False
    text = path.partition("?")[0]
    for _ in range(_ROUNDS):
        if any(_is_dots(part) for part in _BREAKS.split(unicodedata.normalize("NFKC", text))):
            return True
        text = _OLD_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
        if any(_is_dots(part) for part in _BREAKS.split(unicodedata.normalize("NFKC", text))):
            return True
        decoded = unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
        if decoded == text:
            return False
        text = decoded
    return True


def plain_path(path: str) -> str:
    """A path of a job's choice, in the one form that every server reads in the same way.

    Args:
        path: begins with one slash; a query is kept as it is.

    Raises:
        ValueError: it is no such path, or a part of it goes away or changes its meaning when it is decoded again. The
            text says what is wrong, and can stand after "must".
    """
    if not (path.isascii() and path.isprintable()) or set(path) & set('\\#{} "<>^`|'):
        raise ValueError('be ASCII without blanks, and none of \\ # { } " < > ^ ` |')
    before, question, query = path.partition("?")
    if not before.startswith("/"):
        raise ValueError("begin with a slash")
    segments = before[1:].split("/")
    if "" in segments[:-1]:
        raise ValueError("have no two slashes after one another")
    return "/" + "/".join(map(_plain_segment, segments)) + question + query


def _plain_segment(raw: str) -> str:
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("be UTF-8 where it is percent-encoded") from None
    if _ESCAPE.search(text) or _OLD_ESCAPE.search(text):
        raise ValueError("be percent-encoded once, not twice")
    if not all(letter.isalnum() or letter in _SAFE or letter in " %" for letter in text):
        raise ValueError("have letters, digits and -._~!$&'()*+,=:@ between its slashes, encoded or not")
    if _is_dots(text) or text != text.strip(" ") or unicodedata.normalize("NFKC", text) != text:
        raise ValueError("have no . and .. between its slashes, and nothing that looks like them")
    return quote(text, safe=_SAFE)


def _is_dots(part: str) -> bool:
    return "." in part and not part.strip(". \t")
