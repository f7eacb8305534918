"""Read format, width, height and transparency of an image from its first bytes. Pure."""

from __future__ import annotations

import re
import struct
from typing import Final

import msgspec

_SOF: Final = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")


class Looks(msgspec.Struct, frozen=True):
    """``alpha`` is told of PNGs only."""

    format: str
    width: int
    height: int
    alpha: bool = False


def looks_of(data: bytes) -> Looks | None:
    """What a PNG, JPEG or WebP looks like; None for anything else."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
            return Looks("png", width, height, alpha=colour in (4, 6))
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:
        return None
    return None


def _jpeg(data: bytes) -> Looks | None:
    at = 2
    while at < len(data):
        marker, length = data[at : at + 2], struct.unpack_from(">H", data, at + 2)[0]
        if _SOF.fullmatch(marker):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Looks("jpeg", width, height)
        at += 2 + length
    return None


def _webp(data: bytes) -> Looks | None:
    match data[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        case b"VP8L":
            bits = struct.unpack_from("<I", data, 21)[0]
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 26))
        case _:
            return None
    return Looks("webp", width, height)
