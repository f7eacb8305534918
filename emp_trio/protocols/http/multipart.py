"""Bodies of type ``multipart/form-data``: texts and files in one request (RFC 7578). Pure but for the boundary."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

import msgspec

_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do; backslashes are ambiguous


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a form: the field it belongs to (which may come more than once), and the file."""

    field: str
    filename: str
    media_type: str
    data: bytes


def multipart(fields: Iterable[tuple[str, str]], files: Iterable[FilePart] = ()) -> tuple[str, bytes]:
    """Encode a form.

    Args:
        fields: names and values of texts, in their order; a name may come more than once.
        files: files, after the texts.

    Returns:
        the ``content-type`` and the body: what a call takes as ``headers={"content-type": ...}`` and ``content``.

    Raises:
        ValueError: a media type that can't stand in a header.
    """
    heads: list[tuple[str, str | None, bytes]] = [
        (f'form-data; name="{_quoted(name)}"', None, value.encode()) for name, value in fields
    ]
    for file in files:
        if not (file.media_type.isascii() and file.media_type.isprintable()):
            raise ValueError(f"the media type {file.media_type!r} can't stand in a header")
        disposition = f'form-data; name="{_quoted(file.field)}"; filename="{_quoted(file.filename)}"'
        heads.append((disposition, file.media_type, file.data))
    boundary = _boundary(data for _, _, data in heads)
    body = bytearray()
    for disposition, media_type, data in heads:
        body += f"--{boundary}\r\ncontent-disposition: {disposition}\r\n".encode()
        body += f"content-type: {media_type}\r\n".encode() if media_type is not None else b""
        body += b"\r\n"
        body += data
        body += b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", bytes(body)


def _boundary(contents: Iterable[bytes]) -> str:
    """A line that is in none of the contents."""
    held = tuple(contents)
    while True:
        boundary = secrets.token_hex(16)
        if not any(boundary.encode() in content for content in held):
            return boundary


def _quoted(name: str) -> str:
    return name.translate(_ESCAPES)
