"""Small real images in every format of the image models, of any size in bytes. Pure."""

from __future__ import annotations

import base64
from typing import Final

from emp_trio.testing.png import make_png

_JPEG: Final = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI//////////////////////////////////////////////////"
    "//2wBDAVVaWnhpeOuCguv/////////////////////////////////////////////////////////////////////////wAARCAAQABADASIAAhEBAxEB"
    "/8QAFQABAQAAAAAAAAAAAAAAAAAAAgT/xAAVEAEBAAAAAAAAAAAAAAAAAAAAAf/EABQBAQAAAAAAAAAAAAAAAAAAAAP/xAAVEQEBAAAAAAAAAAAAAAAA"
    "AAAAA//aAAwDAQACEQMRAD8AmhwIcJQs3//Z"
)
_WEBP: Final = base64.b64decode(
    "UklGRjgAAABXRUJQVlA4TCsAAAAvD8ADAH8AEIT/cQsDcfj/+U+WwSwANAqxxBJLLLHEEssM9kf0P0A53f0FAA=="
)
_GIF: Final = base64.b64decode(
    "R0lGODlhEAAQAIEAANAAL4gAd0gAtxAA7ywAAAAAEAAQAEAIUwAHCBRAUECAgwEAKFQocEBBgwgXMhxYEGFCiQ0fWpQIIGPFiBgpEtwY0uHHgxw9jgS5"
    "UCVElCU1spxociXMliJfXsRZU2fKnCR5yrxJc+hOhQEBADs="
)
_SVG: Final = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/><!----></svg>\n'
_PADDING: Final = 40  # bytes of it where nobody asks for a size


def image(format: str, *, seed: int, size: int | None = None) -> str:
    """An image as the API sends it, in base64; for the arguments see :func:`make_image`."""
    return base64.b64encode(make_image(format, seed=seed, size=size)).decode()


def make_image(format: str, *, seed: int, size: int | None = None) -> bytes:
    """The bytes of an image.

    Args:
        format: ``png``, ``jpeg``, ``webp``, ``gif`` or ``svg``.
        seed: another seed gives another image.
        size: its exact length in bytes, from 1000; that of a WebP is even.
    """

    def padding(small: int) -> bytearray:
        length = _PADDING if size is None else size - small
        return bytearray(f"fake {seed}".encode().ljust(length, b" ")[:length])

    match format:
        case "jpeg":
            return _JPEG[:2] + _comments(padding(len(_JPEG))) + _JPEG[2:]
        case "webp":
            chunk = padding(len(_WEBP))
            whole = _WEBP + b"PADD" + (len(chunk) - 8).to_bytes(4, "little") + chunk[: len(chunk) - 8]
            return whole[:4] + (len(whole) - 8).to_bytes(4, "little") + whole[8:]
        case "gif":
            return _GIF[:-1] + _blocks(padding(len(_GIF))) + _GIF[-1:]
        case "svg":
            return _SVG.replace(b"<!--", b"<!--" + padding(len(_SVG)))
    return make_png(seed=seed, size=size)


def _comments(padding: bytearray) -> bytes:
    """Comment segments of a JPEG, as long as the padding that is their text."""
    found = b""
    while padding:
        take = _take(len(padding), largest=65_537, smallest=4)
        found += b"\xff\xfe" + (take - 2).to_bytes(2, "big") + padding[: take - 4]
        del padding[:take]
    return found


def _blocks(padding: bytearray) -> bytes:
    """A comment extension of a GIF, as long as the padding that is its text."""
    found = b"\x21\xfe"
    del padding[-3:]
    while padding:
        take = _take(len(padding), largest=256, smallest=2)
        found += bytes([take - 1]) + padding[: take - 1]
        del padding[:take]
    return found + b"\0"


def _take(left: int, *, largest: int, smallest: int) -> int:
    """How much of what is left goes into one piece, so that the rest can be pieces too."""
    take = min(left, largest)
    return take - smallest if 0 < left - take < smallest else take
