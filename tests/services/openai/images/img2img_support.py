"""Image to image against the fake API: images, a server for them, and an open connector."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from emp_trio.connector_context import ConnectorContext
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.services.openai.images.img2img import OpenAIImg2ImgConnector
from emp_trio.testing.openai import FakeOpenAI
from emp_trio.testing.openai.media import make_image
from emp_trio.testing.png import make_png
from tests.services.openai.support import open_openai

PNG = make_png()
JPEG = make_image("jpeg", seed=2)


def _mask() -> bytes:
    """A PNG with an alpha channel, as large as :data:`PNG`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 6, 0, 0, 0))
    return PNG[:8] + head + chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 64 * 4)))) + chunk(b"IEND", b"")


MASK = _mask()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def edit(**payload: Any) -> dict[str, Any]:
    """A payload with a prompt and, where none is given, an image."""
    given = {"prompt": "make it blue"} | payload
    return (
        given
        if payload.keys() & {"image", "images", "image_url", "base64", "file_id"}
        else {"images": [data_url(PNG)]} | given
    )


@asynccontextmanager
async def open_img2img(
    openai: FakeOpenAI, connector_context: ConnectorContext, *, private: bool = True, **settings: Any
) -> AsyncIterator[OpenAIImg2ImgConnector]:
    """Open the connector; it may fetch from this machine unless ``private`` is False. Keywords are settings of it."""
    fetch = FetchSettings(input_allow_private=private, input_max_bytes=100_000, input_timeout=5.0)
    async with open_openai(
        OpenAIImg2ImgConnector, openai, connector_context, own={"fetch": fetch} | settings
    ) as connector:
        yield connector
