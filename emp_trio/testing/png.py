"""A real PNG from nothing but zlib: what the simulated services produce, so that the whole asset path is exercised."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK_FRAME: Final = 12  # length, name and checksum of a chunk


@functools.lru_cache(maxsize=64)
def make_png(
    width: int = 64, height: int = 64, *, seed: int = 0, size: int | None = None, alpha: bool = False
) -> bytes:
    """An image (a colour gradient) as the bytes of a PNG file.

    Args:
        width, height: in pixels.
        seed: another seed gives another image.
        alpha: with an alpha channel; its left half is transparent, as of a mask.
        size: the file's exact length in bytes; reached with an ancillary chunk that readers skip.

    Raises:
        ValueError: the image alone is larger than ``size``.
    """
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # no filter
        for x in range(width):
            rows += bytes((seed * 53 + x * 255 // width & 255, seed * 97 + y * 255 // height & 255, seed & 255))
            if alpha:
                rows.append(0 if x < width // 2 else 255)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6 if alpha else 2, 0, 0, 0))
    head, tail = _SIGNATURE + header, _chunk(b"IDAT", zlib.compress(bytes(rows))) + _chunk(b"IEND", b"")
    if size is None or size == len(head) + len(tail):
        return head + tail
    padding = size - len(head) - len(tail) - _CHUNK_FRAME
    if padding < 0:
        raise ValueError(f"a {width}x{height} image takes {len(head) + len(tail)} bytes and cannot be {size} long")
    return head + _chunk(b"paDd", bytes(padding)) + tail


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
