"""Validate input images and masks, as files and references (OpenAI reference 4.2, 7, 8.2). Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

from emp_trio.testing.forms import Upload
from emp_trio.testing.openai.checks import Fault
from emp_trio.testing.openai.image_info import Looks, looks_of

_EXTENSIONS: Final = {"png": ("png",), "jpeg": ("jpg", "jpeg"), "webp": ("webp",)}
_LARGEST_FILE: Final = 50 * 2**20
_LONGEST_URL: Final = 20_971_520


def mask_faults(mask: Any, first: Looks | None, name: str) -> Iterator[Fault]:
    """What is wrong with a mask for an image that looks like ``first``; None where nobody knows."""
    looks = looks_of_image(mask, name)
    if isinstance(looks, Fault):
        yield looks
    elif looks is not None:
        if looks.format != "png" or not looks.alpha:
            yield Fault(f"Invalid {name}: it must be a PNG with an alpha channel.", name, "invalid_image_file")
        if first is not None and (looks.width, looks.height) != (first.width, first.height):
            yield Fault(f"Invalid {name}: its size differs from the image's.", name, "invalid_image_file")


def looks_of_image(image: Any, where: str) -> Looks | Fault | None:
    """What an image looks like; a Fault where it may not be sent like this; None where only its address is known."""
    if isinstance(image, Upload):
        return _upload_looks(image, where)
    given = {name: image[name] for name in ("image_url", "file_id") if name in image} if isinstance(image, dict) else {}
    if len(given) != 1 or len(image) != 1 or not all(isinstance(value, str) and value for value in given.values()):
        return Fault(f"'{where}' needs exactly one of image_url and file_id.", where)
    data = data_of(given.get("image_url", ""), where)
    if not isinstance(data, bytes):
        return data
    looks = looks_of(data)
    if looks is None or not given["image_url"].startswith(f"data:image/{looks.format};base64,"):
        return Fault(f"'{where}.image_url' is not what it says.", where, "invalid_image_format")
    return looks


def data_of(url: str, where: str) -> bytes | Fault | None:
    """The bytes of a data URI; None for any other address that may be sent, also none at all."""
    if len(url) > _LONGEST_URL:
        return Fault(f"'{where}.image_url' is too long.", where, "string_above_max_length")
    if not url.startswith("data:"):
        bad = url and not url.startswith("https://")
        return Fault(f"'{where}.image_url' is not an https URL.", where, "invalid_image_url") if bad else None
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error:
        return Fault(f"'{where}.image_url' is not base64.", where, "invalid_base64_image")


def _upload_looks(upload: Upload, where: str) -> Looks | Fault:
    looks = looks_of(upload.data)
    if looks is None or len(upload.data) >= _LARGEST_FILE:
        return Fault(f"Invalid image file '{where}'.", where, "invalid_image_file")
    extension = (upload.filename or "").rpartition(".")[2].lower()
    if upload.content_type != f"image/{looks.format}" or extension not in _EXTENSIONS[looks.format]:
        text = f"Invalid file '{where}': {upload.filename!r} of type {upload.content_type!r} is a {looks.format}."
        return Fault(text, where, "invalid_image_file")
    return looks
