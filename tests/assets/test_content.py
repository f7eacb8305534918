"""Gathering bytes: every form a service has, bounded in memory and size."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.assets.content import decode_text, gathered
from emp_trio.errors import AssetError, ServiceError
from tests.assets.support import pieces

LIMIT = 256 * 2**20


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("size", [1, 1000, 70_000, 3 * 2**20, 9 * 2**20])
@pytest.mark.parametrize("form", ["bytes", "bytearray", "base64", "data URL", "stream"])
async def test_every_form_gives_the_same_content(form: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    given: Any = {
        "bytes": data,
        "bytearray": bytearray(data),
        "base64": b64(data),
        "data URL": f"data:image/webp;base64,{b64(data)}",
        "stream": pieces(data),
    }[form]
    async with gathered(given, max_bytes=LIMIT) as content:
        assert content.size == size
        assert content.sha256 == hashlib.sha256(data).hexdigest()
        assert content.head == data[:4096]
        assert content.declared == ("image/webp" if form == "data URL" else None)
        for _ in range(2):  # a repeated upload reads it again
            content.file.seek(0)
            assert content.file.read() == data


@pytest.mark.parametrize(
    ("text", "declared", "data"),
    [
        ("aGVsbG8=", None, b"hello"),
        (" aGVs\r\nbG8= \n", None, b"hello"),
        ("data:;base64,aGVsbG8=", None, b"hello"),
        ("data:text/plain;charset=utf-8;base64,aGVsbG8=", "text/plain", b"hello"),
        ("data:text/plain,a%20b", "text/plain", b"a b"),
        ("\ndata:image/png;base64,aGVsbG8=", "image/png", b"hello"),
        ("DATA:image/png;BASE64,aGVsbG8=", "image/png", b"hello"),
        ("-_-_aGVsbG8", None, b"\xfb\xff\xbfhello"),  # URL-safe, without padding
        ("data:;base64,_-8", None, b"\xff\xef"),
    ],
)
def test_text_forms(text: str, declared: str | None, data: bytes) -> None:
    assert decode_text(text) == (declared, data)


@given(st.binary(max_size=200), st.booleans())
def test_base64_round_trip(data: bytes, as_url: bool) -> None:
    text = b64(data)
    assert decode_text(f"data:a/b;base64,{text}" if as_url else text)[1] == data


@given(st.text(max_size=100))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    with contextlib.suppress(ServiceError):  # and nothing else
        decode_text(text)


@pytest.mark.parametrize(
    "text", ["aGVsbG8", "aGVs*G8=", "ölf", "data:image/png;base64,%%%", "aGVsbG8===", "data:a,\ud800"]
)
async def test_bad_base64(text: str) -> None:
    with pytest.raises(ServiceError, match="base64") as caught:
        async with gathered(text, max_bytes=LIMIT):
            pass
    assert (caught.value.type, caught.value.reason) == ("response_error", "corrupted_data")


@pytest.mark.parametrize("data", [b"", "", "data:image/png;base64,", pieces(b"")])
async def test_nothing_is_an_error(data: Any) -> None:
    with pytest.raises(ServiceError, match="empty") as caught:
        async with gathered(data, max_bytes=LIMIT):
            pass
    assert caught.value.reason == "missing_expected_data"


@pytest.mark.parametrize("data", [None, 7, {"url": "x"}, ["a"]])
async def test_nonsense_is_an_error(data: Any) -> None:
    with pytest.raises(ServiceError, match=type(data).__name__):
        async with gathered(data, max_bytes=LIMIT):
            pass


@pytest.mark.parametrize("form", ["bytes", "base64", "stream"])
async def test_too_large(form: str) -> None:
    data = bytes(2000)
    given: Any = {"bytes": data, "base64": b64(data), "stream": pieces(data, 100)}[form]
    with pytest.raises(AssetError, match="larger than the 1999 bytes") as caught:
        async with gathered(given, max_bytes=1999):
            pass
    assert not caught.value.retry
    async with gathered(data, max_bytes=2000):
        pass


async def test_a_stream_is_closed_when_it_is_too_large_or_cancelled() -> None:
    closed = []

    async def endless(stall: bool) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
                await trio.lowlevel.checkpoint()
                if stall:
                    await trio.sleep_forever()
        finally:
            closed.append(stall)

    with pytest.raises(AssetError):
        async with gathered(endless(False), max_bytes=10_000):
            pass
    with trio.move_on_after(0.05) as scope:
        async with gathered(endless(True), max_bytes=10_000):
            pass
    assert scope.cancelled_caught
    assert closed == [False, True]


async def test_what_the_stream_raises_passes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ServiceError("cut", status=502)

    with pytest.raises(ServiceError, match="cut"):
        async with gathered(broken(), max_bytes=LIMIT):
            pass


async def test_a_film_does_not_fill_the_memory() -> None:
    piece = bytes(2**18)

    async def film() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield piece

    tracemalloc.start()
    try:
        async with gathered(film(), max_bytes=LIMIT) as content:
            assert content.size == 64 * 2**20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


async def test_temporary_files_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with trio.CancelScope() as scope:
        async with gathered(pieces(bytes(9 * 2**20)), max_bytes=LIMIT) as content:
            assert content.size == 9 * 2**20
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []
