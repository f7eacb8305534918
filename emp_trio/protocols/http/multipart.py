"""Bodies of type ``multipart/form-data``: texts and files in one request (RFC 7578). Pure but for the boundary."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from urllib3 import encode_multipart_formdata
from urllib3.fields import RequestField


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
    parts = [RequestField.from_tuples(name, value) for name, value in fields]
    for file in files:
        if not (file.media_type.isascii() and file.media_type.isprintable()):  # urllib3 would send it as it is
            raise ValueError(f"the media type {file.media_type!r} can't stand in a header")
        parts.append(RequestField.from_tuples(file.field, (file.filename, file.data, file.media_type)))
    body, content_type = encode_multipart_formdata(parts)
    return content_type, body
