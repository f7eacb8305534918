"""Validate the options of an image model, for the tool and the Images API (OpenAI reference 1.1, 7, 8). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from emp_trio.testing.openai.checks import Fault, choice_fault, unsupported

_CURRENT: Final = re.compile(r"gpt-image-2(\.[56]-(sunburst|flare))?(-\d{4}-\d{2}-\d{2})?")
_OLD: Final = frozenset(("gpt-image-1.5", "gpt-image-1-mini", "chatgpt-image-latest"))  # until 2026-12-01
_DEFAULT: Final = "gpt-image-2.6-sunburst"
_OLD_SIZES: Final = ("auto", "1024x1024", "1536x1024", "1024x1536")
_QUALITIES: Final = ("auto", "low", "medium", "high")
_SIZE: Final = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_USER_ERROR: Final = "image_generation_user_error"


def image_model_of(options: Mapping[str, Any]) -> str:
    """The model that a request or a tool names, or the default."""
    return str(options.get("model") or _DEFAULT)


def option_faults(options: Mapping[str, Any], *, stream: bool, where: str = "") -> Iterator[Fault]:
    """What is wrong with the options of an image.

    Args:
        stream: whether the request is streamed.
        where: what comes before a parameter's name in ``param``.
    """
    model = image_model_of(options)
    if model not in _OLD and not _CURRENT.fullmatch(model):
        yield Fault(f"The model '{model}' does not exist.", "model", "invalid_value", _USER_ERROR)
        return
    newest = model.startswith("gpt-image-2.6")
    qualities = _QUALITIES + (("xhigh", "max") if model.startswith("gpt-image-2.") else ())
    formats = ("png", "jpeg", "webp", "gif", "svg") if newest else ("png", "jpeg", "webp")
    for name, choices in (
        ("quality", qualities),
        ("background", ("auto", "opaque", "transparent")),
        ("output_format", formats),
        ("moderation", ("auto", "low")),
        ("complexity", ("low", "medium", "high")),
    ):
        if options.get(name) is not None and (fault := choice_fault(options[name], choices, where + name)):
            yield fault
    if options.get("complexity") is not None and not newest:
        yield unsupported(f"{where}complexity")
    fidelity = options.get("input_fidelity")
    if fidelity is not None and (model not in _OLD or (model == "gpt-image-1-mini" and fidelity != "low")):
        yield unsupported(f"{where}input_fidelity")
    if fidelity is not None and (fault := choice_fault(fidelity, ("high", "low"), f"{where}input_fidelity")):
        yield fault
    yield from _size_faults(options.get("size"), free=model not in _OLD)
    yield from _format_faults(options, stream=stream, where=where)


def _size_faults(size: Any, *, free: bool) -> Iterator[Fault]:
    if size is None or size in _OLD_SIZES:
        return
    wrong = Fault(f"Invalid size {size!r}.", "size", "invalid_value", _USER_ERROR)
    found = _SIZE.fullmatch(size) if isinstance(size, str) and free else None
    if found is None:
        yield wrong
        return
    width, height = int(found[1]), int(found[2])
    if (
        width % 16
        or height % 16
        or max(width, height) > 3840
        or not 1 / 3 <= width / height <= 3
        or not 655_360 <= width * height <= 8_294_400
    ):
        yield wrong


def _format_faults(options: Mapping[str, Any], *, stream: bool, where: str) -> Iterator[Fault]:
    output_format = options.get("output_format") or "png"
    compression = options.get("output_compression")
    if compression is not None:
        if not _whole(compression) or not 0 <= compression <= 100:
            yield Fault("output_compression must be from 0 to 100.", f"{where}output_compression")
        elif compression != 100 and output_format not in ("jpeg", "webp"):
            yield Fault("output_compression needs jpeg or webp.", f"{where}output_compression")
    if options.get("background") == "transparent" and output_format not in ("png", "webp"):
        yield Fault("A transparent background needs png or webp.", f"{where}background")
    partials = options.get("partial_images")
    if partials is not None:
        if not _whole(partials) or not 0 <= partials <= 3:
            yield Fault("partial_images must be from 0 to 3.", f"{where}partial_images")
        elif partials and not stream:
            yield Fault("partial_images needs stream.", f"{where}partial_images")
        elif partials and output_format == "gif":
            yield Fault("A gif has no partial images.", f"{where}partial_images")
    if output_format == "svg" and (stream or (options.get("n") or 1) != 1):
        yield Fault("An svg is one image, and not streamed.", f"{where}output_format")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
