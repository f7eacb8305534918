"""Validate ``POST /images/generations`` and ``POST /images/edits`` (OpenAI reference 8.1, 8.2). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from emp_trio.testing.forms import Upload
from emp_trio.testing.openai.checks import BOOL, INT, TEXT, Fault, missing, type_fault
from emp_trio.testing.openai.image_info import Looks
from emp_trio.testing.openai.image_options import image_model_of, option_faults
from emp_trio.testing.openai.input_image_rules import looks_of_image, mask_faults

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
        looks = looks_of_image(image, f"image[{index}]")
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
            yield from mask_faults(body[name], first, name)
