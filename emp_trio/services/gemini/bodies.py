"""Build request bodies for both interfaces of Gemini (Gemini reference A3, A7). Pure."""

from __future__ import annotations

from typing import Any, Final

from emp_trio.services.gemini.payload import Asked
from emp_trio.services.gemini.wire import snake

_MODALITIES: Final = ("TEXT", "IMAGE")
_CARRIED: Final = frozenset("temperature topP topK seed maxOutputTokens stopSequences".split())
_REPLACED: Final = frozenset(("responseModalities",))  # by response_format
_PARTS: Final = frozenset(("text", "inlineData", "fileData"))


def generate_content_body(asked: Asked) -> dict[str, Any]:
    """The body of ``generateContent``; the model belongs into the path."""
    config: dict[str, Any] = {"responseModalities": list(_MODALITIES)} | asked.config
    if asked.flat:  # one of the two ways to say it, never both
        config["responseFormat"] = {"image": dict(asked.image)}
    elif asked.image:
        config["imageConfig"] = dict(asked.image)
    return {"contents": asked.contents, "generationConfig": config} | asked.body


def interaction_body(asked: Asked) -> dict[str, Any]:
    """The body of an interaction in the background; for what :func:`only_generate_content` has no objection to."""
    parts = [_content(part) for part in asked.contents[0]["parts"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    body: dict[str, Any] = {
        "model": asked.model,
        "input": texts[0] if len(parts) == len(texts) == 1 else parts,
        "response_format": {"type": "image", "delivery": "inline"}
        | {snake(name): value for name, value in asked.image.items()},
        "background": True,
        "store": True,
    }
    config = {snake(name): value for name, value in asked.config.items() if name in _CARRIED}
    if config:
        body["generation_config"] = config
    if "systemInstruction" in asked.body:
        body["system_instruction"] = "\n".join(part["text"] for part in asked.body["systemInstruction"]["parts"])
    for name in ("safetySettings", "serviceTier"):
        if name in asked.body:
            body[snake(name)] = asked.body[name]
    return body


def only_generate_content(asked: Asked) -> str:
    """Why a request can only be made by ``generateContent``, or "": its other form has no documented place for it."""
    others = sorted(asked.config.keys() - _CARRIED - _REPLACED)
    if others:
        return f"generationConfig.{others[0]}"
    if len(asked.contents) > 1 or asked.contents[0]["role"] != "user":
        return "several contents"
    if asked.body.get("store") is False:
        return "store: false"
    if not _is_plain_text(asked.body.get("systemInstruction")):
        return "systemInstruction that is not text"
    for part in asked.contents[0]["parts"]:
        others = sorted(part.keys() - _PARTS)
        if others or len(part) != 1:
            return f"a part with {others[0] if others else 'several members'}"
        kind = _media_type(part)
        if kind is not None and not kind.startswith("image/"):
            return f"a part of type {kind}"
    return ""


def _content(part: dict[str, Any]) -> dict[str, Any]:
    match part:
        case {"inlineData": {"data": data, "mimeType": kind}}:
            return {"type": "image", "data": data, "mime_type": kind}
        case {"fileData": {"fileUri": uri}}:
            return {"type": "image", "uri": uri}
        case _:
            return {"type": "text", "text": part["text"]}


def _media_type(part: dict[str, Any]) -> str | None:
    """What a part that is no text says it is; images that are still to be fetched are images."""
    about = part.get("inlineData") or part.get("fileData")
    if about is None:
        return None
    return str(about.get("mimeType")) if isinstance(about, dict) else "image/*"


def _is_plain_text(instruction: Any) -> bool:
    if instruction is None:
        return True
    parts = instruction.get("parts") if isinstance(instruction, dict) else None
    return isinstance(parts, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts)
