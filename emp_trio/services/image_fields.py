"""Find an image in a JSON object, under the many names that services and gateways use. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from emp_trio.services.outputs import Output

_DATA: Final = (
    *("b64_json", "b64", "base64", "image_base64", "image_b64", "imageBase64", "b64_image"),
    *("bytesBase64Encoded", "bytes_base64_encoded", "imageBytes", "image_bytes", "result", "data", "bytes"),
)
_PLACES: Final = ("image", "url", "image_url", "imageUrl", "uri", "fileUri", "file_uri", "content_url", "output_url")
_INSIDE: Final = ("inlineData", "inline_data", "fileData", "file_data", "source", "blob")
_TYPES: Final = ("mime_type", "mimeType", "media_type", "mediaType", "content_type", "contentType")
_DEEPEST: Final = 3
_SHORTEST: Final = 64  # characters of base64; a word is no image


def image_in(entry: Any, *, media_type: str | None = None) -> Output | None:
    """The image that an object of an answer holds, or that a text is; None where there is none.

    Args:
        entry: text, or an object with the image under one of its usual names, also one object deeper.
        media_type: what is known of its type beside the object.

    What stands under a name that is used for nothing else is taken as it is: whether it can be decoded shows later.
    """
    return _in(entry, media_type, _DEEPEST)


def media_type_of(entry: Any) -> str | None:
    """What an object says of its type, where it looks like a media type."""
    if not isinstance(entry, dict):
        return None
    said = (entry.get(name) for name in _TYPES)
    return next((kind for kind in said if isinstance(kind, str) and "/" in kind), None)


def is_source(text: Any) -> bool:
    """Whether a value looks like the place of a file, or like base64, by its beginning."""
    if not isinstance(text, str):
        return False
    head = text.lstrip()[:_SHORTEST]
    if head[:8].lower().startswith(("http://", "https://", "data:")):
        return True
    return (
        len(head) == _SHORTEST and head.isascii() and all(letter.isalnum() or letter in "+/-_=\r\n" for letter in head)
    )


def _in(entry: Any, media_type: str | None, depth: int) -> Output | None:
    if is_source(entry):
        return Output(source=entry, media_type=media_type)
    if not isinstance(entry, dict) or not depth:
        return None
    kind = media_type_of(entry) or media_type
    return next(_found(entry, kind, depth), None)


def _found(entry: dict[str, Any], kind: str | None, depth: int) -> Iterator[Output]:
    for name in _DATA:
        value = entry.get(name)
        if isinstance(value, str) and value and (name not in ("result", "data", "bytes") or is_source(value)):
            yield Output(source=value, media_type=kind)
    for name in (*_PLACES, *_DATA, *_INSIDE):
        value = entry.get(name)
        if isinstance(value, dict) or (name in _PLACES and isinstance(value, str)):
            inside = _in(value, kind, depth - 1)
            if inside is not None:
                yield inside
