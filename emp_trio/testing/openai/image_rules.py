"""What ``POST /images/generations`` and ``POST /images/edits`` accept (OpenAI reference 8.1, 8.2). Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final

from emp_trio.testing.openai.checks import BOOL, INT, TEXT, Fault, missing, type_fault
from emp_trio.testing.openai.image_options import image_model_of, option_faults
from emp_trio.testing.openai.looks import Looks, looks_of
from emp_trio.testing.openai.multipart import Upload

_COMMON: Final[dict[str, tuple[type, ...]]] = {
    "prompt": (str,),
    "model": TEXT,
    "n": INT,
    "size": TEXT,
    "quality": TEXT,
    "background": TEXT,
    "output_format": TEXT,
    "output_compression": INT,
    "moderation": TEXT,
    "stream": BOOL,
    "partial_images": INT,
}
_GENERATION: Final = _COMMON | {"complexity": TEXT, "safety_identifier": TEXT}
_EDIT: Final = _COMMON | {"images": (list,), "mask": (dict, Upload), "markup": (Upload,), "input_fidelity": TEXT}
_REFUSED: Final = ("response_format", "style")
_NUMBERS: Final = ("n", "output_compression", "partial_images")
_FILES: Final = ("image", "image[]", "mask", "markup")
_EXTENSIONS: Final = {"png": ("png",), "jpeg": ("jpg", "jpeg"), "webp": ("webp",)}
_LARGEST_FILE: Final = 50 * 2**20
_LONGEST_URL: Final = 20_971_520


def image_violations(body: dict[str, Any], *, edit: bool) -> list[str]:
    """Everything in a request that no reference documents."""
    fields = _EDIT if edit else _GENERATION
    found = [f"undocumented field {name!r}" for name in body if name not in fields and name not in _REFUSED]
    return found if body.get("model") else [*found, "an Images request does not say its model"]


def image_fault(body: dict[str, Any], *, edit: bool) -> Fault | None:
    """The first documented error of a request, or None."""
    return next(_faults(body, edit=edit), None)


def form_body(parts: Sequence[Upload]) -> dict[str, Any] | Fault:
    """A multipart form as a JSON body would have it, with files as uploads in ``images``, ``mask`` and ``markup``."""
    body: dict[str, Any] = {}
    names = [part.name for part in parts]
    for part in parts:
        if part.name in ("image", "image[]"):
            body.setdefault("images", []).append(part)
        elif part.name in body:
            return Fault(f"Duplicate parameter: '{part.name}'.", part.name, "duplicate_parameter")
        elif part.name in _FILES:
            body[part.name] = part
        else:
            value = _scalar(part)
            if isinstance(value, Fault):
                return value
            body[part.name] = value
    if names.count("image") > 1 or ("image" in names and "image[]" in names):
        return Fault("Duplicate parameter: 'image'. Use 'image[]' for several.", "image", "duplicate_parameter")
    if "moderation" in names:
        return Fault("Unknown parameter: 'moderation'.", "moderation", "unknown_parameter")
    return body


def _scalar(part: Upload) -> Any:
    text = part.data.decode("utf-8", "replace")
    if part.name in _NUMBERS:
        return int(text) if text.isdecimal() else Fault(f"Invalid type for '{part.name}'.", part.name, "invalid_type")
    if part.name == "stream":
        wrong = Fault("Invalid type for 'stream'.", "stream", "invalid_type")
        return {"true": True, "false": False}.get(text, wrong)
    return text


def _faults(body: dict[str, Any], *, edit: bool) -> Iterator[Fault]:
    for name in _REFUSED:
        if name in body:
            yield Fault(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    wrong_type = type_fault(body, _EDIT if edit else _GENERATION)
    if wrong_type is not None:
        yield wrong_type
    if not body.get("prompt"):
        yield missing("prompt")
    if len(body["prompt"]) > 32_000:
        yield Fault("prompt is longer than 32000 characters.", "prompt", "string_above_max_length")
    if body.get("n") is not None and not 1 <= body["n"] <= 10:
        yield Fault("n must be from 1 to 10.", "n", "integer_out_of_range")
    yield from option_faults(body, stream=bool(body.get("stream")))
    if edit:
        yield from _edit_faults(body)


def _edit_faults(body: dict[str, Any]) -> Iterator[Fault]:
    images = body.get("images") or []
    if not images:
        yield missing("image")
    if len(images) > 16:
        yield Fault("At most 16 images.", "image", "array_above_max_length")
    first: Looks | None = None
    for index, image in enumerate(images):
        looks = _looks(image, f"image[{index}]")
        if isinstance(looks, Fault):
            yield looks
        elif index == 0:
            first = looks
    if body.get("mask") is not None and body.get("markup") is not None:
        yield Fault("Use mask or markup, not both.", "markup")
    if body.get("mask") is not None and body.get("output_format") == "gif":
        yield Fault("A gif takes no mask.", "mask")
    if body.get("markup") is not None and not image_model_of(body).startswith("gpt-image-2."):
        yield Fault("markup is not supported with this model.", "markup", "unsupported_parameter")
    for name in ("mask", "markup"):
        if body.get(name) is not None:
            yield from _mask_faults(body[name], first, name)


def _mask_faults(mask: Any, first: Looks | None, name: str) -> Iterator[Fault]:
    looks = _looks(mask, name)
    if isinstance(looks, Fault):
        yield looks
    elif looks is not None:
        if looks.format != "png" or not looks.alpha:
            yield Fault(f"Invalid {name}: it must be a PNG with an alpha channel.", name, "invalid_image_file")
        if first is not None and (looks.width, looks.height) != (first.width, first.height):
            yield Fault(f"Invalid {name}: its size differs from the image's.", name, "invalid_image_file")


def _looks(image: Any, where: str) -> Looks | Fault | None:
    """What a picture looks like; a Fault where it may not be sent like this; None where only its address is known."""
    if isinstance(image, Upload):
        return _upload_looks(image, where)
    given = {name: image[name] for name in ("image_url", "file_id") if name in image} if isinstance(image, dict) else {}
    if len(given) != 1 or len(image) != 1 or not all(isinstance(value, str) and value for value in given.values()):
        return Fault(f"'{where}' needs exactly one of image_url and file_id.", where)
    url = given.get("image_url", "")
    if len(url) > _LONGEST_URL:
        return Fault(f"'{where}.image_url' is too long.", where, "string_above_max_length")
    if not url.startswith("data:"):
        bad = url and not url.startswith("https://")
        return Fault(f"'{where}.image_url' is not an https URL.", where, "invalid_image_url") if bad else None
    head, _, data = url.partition(",")
    try:
        looks = looks_of(base64.b64decode(data, validate=True))
    except binascii.Error:
        return Fault(f"'{where}.image_url' is not base64.", where, "invalid_base64_image")
    if looks is None or head != f"data:image/{looks.format};base64":
        return Fault(f"'{where}.image_url' is not what it says.", where, "invalid_image_format")
    return looks


def _upload_looks(upload: Upload, where: str) -> Looks | Fault:
    looks = looks_of(upload.data)
    if looks is None or len(upload.data) >= _LARGEST_FILE:
        return Fault(f"Invalid image file '{where}'.", where, "invalid_image_file")
    extension = (upload.filename or "").rpartition(".")[2].lower()
    if upload.content_type != f"image/{looks.format}" or extension not in _EXTENSIONS[looks.format]:
        text = f"Invalid file '{where}': {upload.filename!r} of type {upload.content_type!r} is a {looks.format}."
        return Fault(text, where, "invalid_image_file")
    return looks
