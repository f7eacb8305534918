"""The image that the simulated services make is a PNG that any reader takes."""

from __future__ import annotations

import struct
import zlib

import pytest

from emp_trio.testing.png import make_png


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG, checked as a reader checks them."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
        found[name] = data
        at += 12 + length
    assert at == len(png)
    assert list(found)[-1] == b"IEND"
    return found


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (3, 100)])
def test_a_image_has_all_its_rows(width: int, height: int) -> None:
    found = chunks(make_png(width, height, seed=9))
    assert struct.unpack(">II", found[b"IHDR"][:8]) == (width, height)
    assert len(zlib.decompress(found[b"IDAT"])) == height * (1 + 3 * width)


@pytest.mark.parametrize("size", [10_000, 65_536, 1_000_001])
def test_a_size_is_met_to_the_byte(size: int) -> None:
    png = make_png(size=size)
    assert len(png) == size
    assert b"IDAT" in chunks(png)


def test_a_size_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be 100 long"):
        make_png(size=100)


def test_seeds_give_different_images() -> None:
    assert make_png(seed=1) != make_png(seed=2)
    assert make_png(seed=1) == make_png(seed=1)
