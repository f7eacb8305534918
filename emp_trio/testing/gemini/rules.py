"""Validate requests as Gemini does (Gemini reference A2, A3, A7). Pure.

Two kinds of diagnostics: a fault is what the service answers with a 400 or a 404; a violation is what it may well let
pass today but nobody has documented.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

import msgspec

_FEW: Final = frozenset("1:1 2:3 3:2 3:4 4:3 4:5 5:4 9:16 16:9 21:9".split())
_ALL: Final = _FEW | {"1:4", "4:1", "1:8", "8:1"}
MODELS: Final = {  # aspect ratios and sizes (A2)
    "gemini-nano-banana-2.1": (_ALL, ("1K", "2K", "4K")),
    "gemini-3.1-flash-image": (_ALL, ("512", "1K", "2K", "4K")),
    "gemini-3.1-flash-lite-image": (_ALL, ("1K",)),
    "gemini-3-pro-image": (_FEW, ("1K", "2K", "4K")),
    "gemini-2.5-flash-image": (_FEW, ("1K",)),
}
TEXT_MODELS: Final = ("gemini-3.1-flash",)

_IMAGES: Final = frozenset(f"image/{kind}" for kind in "png jpeg webp heic heif gif avif".split())
_FIELDS: Final = frozenset("contents systemInstruction generationConfig safetySettings serviceTier store".split())
_CONFIG: Final = frozenset(
    "responseModalities imageConfig responseFormat temperature topP topK seed candidateCount maxOutputTokens "
    "stopSequences thinkingConfig".split()
)
_PART: Final = frozenset("text inlineData fileData thoughtSignature thought".split())
_INTERACTION: Final = frozenset(
    "model input response_format background store stream previous_interaction_id system_instruction generation_config "
    "safety_settings service_tier labels tools webhook_config".split()
)
_INTERACTION_CONFIG: Final = frozenset("temperature top_p top_k seed max_output_tokens stop_sequences".split())
_CATEGORIES: Final = frozenset(
    f"HARM_CATEGORY_{name}"
    for name in "HARASSMENT HATE_SPEECH SEXUALLY_EXPLICIT DANGEROUS_CONTENT CIVIC_INTEGRITY".split()
)
_THRESHOLDS: Final = frozenset("BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF".split())
_TIERS: Final = ("standard", "flex", "priority")


class Fault(msgspec.Struct, frozen=True):
    """A documented error of a request."""

    message: str
    status: int = 400
    word: str = "INVALID_ARGUMENT"


def generate_content_violations(body: dict[str, Any]) -> list[str]:
    """Everything in a ``generateContent`` request that no reference documents."""
    found = _unknown("field", body, _FIELDS)
    config = _object(body.get("generationConfig"))
    found += _unknown("member of generationConfig", config, _CONFIG)
    if "imageConfig" in config and "responseFormat" in config:
        found.append("both imageConfig and responseFormat")
    found += _unknown("member of imageConfig", _object(config.get("imageConfig")), ("aspectRatio", "imageSize"))
    flat = _object(_object(config.get("responseFormat")).get("image"))
    found += _unknown("member of responseFormat.image", flat, ("aspectRatio", "imageSize", "mimeType", "delivery"))
    for content in _objects(body.get("contents")):
        if content.get("role") not in ("user", "model"):
            found.append("a content without a role")
        for part in _objects(content.get("parts")):
            found += _unknown("member of a part", part, _PART)
            found += _unknown("member of inlineData", _object(part.get("inlineData")), ("mimeType", "data"))
            found += _unknown("member of fileData", _object(part.get("fileData")), ("mimeType", "fileUri"))
    found += _unknown("member of systemInstruction", _object(body.get("systemInstruction")), ("role", "parts"))
    return found + _common(body.get("safetySettings"), body.get("serviceTier"))


def generate_content_fault(model: str, body: dict[str, Any]) -> Fault | None:
    """The first documented error of a ``generateContent`` request, or None."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        return Fault("* GenerateContentRequest.contents: contents is not specified")
    for content in contents:
        for part in _objects(_object(content).get("parts")):
            if fault := _image_fault(_object(part.get("inlineData")), "mimeType"):
                return fault
    config = _object(body.get("generationConfig"))
    flat = _object(_object(config.get("responseFormat")).get("image"))
    image = _object(config.get("imageConfig")) | flat
    if image and model in TEXT_MODELS:
        return Fault("Image options are not supported by this model.")
    return _model_fault(model, image.get("aspectRatio"), image.get("imageSize"))


def interaction_violations(body: dict[str, Any]) -> list[str]:
    """Everything in a request for an interaction that no reference documents."""
    found = _unknown("field", body, _INTERACTION)
    config = _object(body.get("generation_config"))
    found += _unknown("member of generation_config", config, _INTERACTION_CONFIG)
    wanted = _object(body.get("response_format"))
    found += _unknown(
        "member of response_format", wanted, ("type", "aspect_ratio", "image_size", "mime_type", "delivery")
    )
    if wanted.get("type") != "image":
        found.append("response_format does not ask for an image")
    if wanted.get("mime_type") not in (None, "image/jpeg"):
        found.append("response_format.mime_type is documented as image/jpeg only")
    for part in _objects(body.get("input")):
        match part:
            case {"type": "text", "text": str(), **rest} if not rest:
                pass
            case {"type": "image", "data": str(), "mime_type": str(), **rest} if not rest:
                pass
            case {"type": "image", "uri": str(), **rest} if not rest:
                pass
            case _:
                found.append(f"an input part of no documented form: {sorted(part)}")
    if not isinstance(body.get("system_instruction", ""), str):
        found.append("system_instruction is not a text")
    return found + _common(body.get("safety_settings"), body.get("service_tier"))


def interaction_fault(body: dict[str, Any]) -> Fault | None:
    """The first documented error of a request for an interaction, or None."""
    model, given = body.get("model"), body.get("input")
    if not isinstance(model, str) or not model:
        return Fault("model is required")
    if not given or not isinstance(given, str | list):
        return Fault("input is required")
    if body.get("background") and body.get("store") is False:
        return Fault("background requires store")
    for part in _objects(given):
        if "uri" not in part and (fault := _image_fault(part if part.get("type") == "image" else {}, "mime_type")):
            return fault
    wanted = _object(body.get("response_format"))
    return _model_fault(model, wanted.get("aspect_ratio"), wanted.get("image_size"))


def _model_fault(model: str, ratio: Any, size: Any) -> Fault | None:
    if model in TEXT_MODELS:
        return None
    if model not in MODELS:
        text = f"models/{model} is not found for API version v1beta, or is not supported for this method."
        return Fault(text, 404, "NOT_FOUND")
    ratios, sizes = MODELS[model]
    if ratio is not None and ratio not in ratios:
        return Fault(f"Invalid aspect ratio {ratio!r}.")
    if size is not None and size not in sizes:
        return Fault(f"Invalid image size {size!r}.")
    return None


def _image_fault(image: dict[str, Any], kind: str) -> Fault | None:
    if not image:
        return None
    if image.get(kind) not in _IMAGES:
        return Fault(f"Unsupported MIME type: {image.get(kind)}")
    try:
        base64.b64decode(image.get("data") or "!", validate=True)
    except (binascii.Error, ValueError):
        return Fault("Base64 decoding failed.")
    return None


def _common(safety: Any, tier: Any) -> list[str]:
    found = [
        f"a safety setting that is not documented: {setting}"
        for setting in _objects(safety)
        if setting.get("category") not in _CATEGORIES or setting.get("threshold") not in _THRESHOLDS
    ]
    if tier is not None and tier not in _TIERS:
        found.append(f"the service tier {tier!r} is not documented")
    return found


def _unknown(what: str, given: dict[str, Any], known: Iterable[str]) -> list[str]:
    return [f"undocumented {what} {name!r}" for name in sorted(given.keys() - set(known))]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
