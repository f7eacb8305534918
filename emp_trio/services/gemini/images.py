"""Images on their way into a request (Gemini reference A3)."""

from __future__ import annotations

import base64
from typing import Final

import trio

from emp_trio.protocols.fetch import Fetcher
from emp_trio.protocols.urls import shown_url
from emp_trio.services.gemini.payload import Asked, sources, with_images
from emp_trio.services.inputs import IMAGES, input_file, is_url

INPUTS: Final = IMAGES | {"image/heic", "image/avif"}


async def with_inputs(fetcher: Fetcher, asked: Asked) -> Asked:
    """``asked`` with every image that it names fetched, or decoded, and put in as base64.

    Args:
        fetcher: gets what a URL names.

    Raises:
        InvalidJob: an image can't be had, is none, or is too large.
        InputUnavailable: the server that should have it failed.
    """
    found = {}
    for source in sources(asked):
        file = await input_file(fetcher, source.text, kinds=INPUTS)
        data = await trio.to_thread.run_sync(base64.b64encode, file.data)
        found[source] = {"mimeType": file.media_type, "data": data.decode()}
    return with_images(asked, found)


def shown(asked: Asked) -> Asked:
    """``asked`` with a note in place of every image that it names: for copies that are kept. Pure."""
    notes = {}
    for source in sources(asked):
        size = f"base64 data, {len(source.text) * 3 // 4} bytes"
        about = shown_url(source.text) if is_url(source.text) else size
        notes[source] = {"mimeType": source.media_type or "image/*", "data": f"<{about}>"}
    return with_images(asked, notes)
