"""Parse the payload of a job (connector reference 7; Gemini reference A2, A3). Pure.

A payload is a prompt (``prompt`` or ``text``) with options and images beside it, or ``contents`` as the API takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast, get_args

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import excerpt
from emp_trio.services.gemini.address import choose_model, is_model_name
from emp_trio.services.gemini.settings import Api
from emp_trio.services.gemini.wire import camel
from emp_trio.services.lenient import numbers

_EXTRAS: Final = frozenset(
    "ctx bucket prefix filename provider cdnUrl workflow_name workflow_context user_id generation_context "
    "save_assets".split()
)
_IMAGE: Final = ("aspectRatio", "imageSize")
_CONFIG: Final = (
    "temperature topP topK seed candidateCount maxOutputTokens stopSequences thinkingConfig responseModalities".split()
)
_NUMBERS: Final = frozenset("temperature topP topK seed candidateCount maxOutputTokens".split())
_BODY: Final = ("systemInstruction", "safetySettings", "serviceTier", "store")
_IMAGES: Final = ("image", "images", "imageUrl")
_KNOWN: Final = frozenset(
    {"contents", "prompt", "text", "api", "model", "n", "generationConfig", "inlineData", "fileData"}
    | {*_IMAGE, *_CONFIG, *_BODY, *_IMAGES}
)


class Source(msgspec.Struct, frozen=True):
    """An image of the payload: an https URL, a data URL or base64 text, and what it is said to be."""

    text: str
    media_type: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of Gemini, in neither form yet.

    Attributes:
        api: which interface is tried first.
        contents: as the API takes them, but with a :class:`Source` for every ``inlineData`` that is not base64 yet.
        image: ``aspectRatio``, ``imageSize``, ``mimeType`` of the image, as far as they are asked for.
        flat: whether the payload asks for the image by ``responseFormat``, the newer of two ways.
        config: the rest of ``generationConfig``.
        body: further members of the request.
        warnings: what was changed or left out, for the result and the log.
    """

    api: Api
    model: str
    contents: list[dict[str, Any]]
    image: dict[str, str]
    flat: bool
    config: dict[str, Any]
    body: dict[str, Any]
    warnings: tuple[str, ...]


def read_payload(payload: dict[str, Any], *, api: Api, configured: str, in_address: str) -> Asked:
    """What a payload asks for.

    Args:
        payload: names in camel case or snake case. Images are in ``image``, ``images``, ``image_url``, or in
            ``inline_data`` (``image_url``, or ``data``) or ``file_data`` at any depth.
        api: tried first where the payload does not say.
        configured, in_address: the model of the settings, and of the configured address.

    Raises:
        InvalidJob: there is nothing to draw, or something is not what it must be.
    """
    given = camel(payload)
    warnings = []
    contents = _contents(given)
    asked_api, asked_model = given.get("api") or api, given.get("model")
    if asked_api not in get_args(Api):
        raise _wrong("api", f"one of {', '.join(get_args(Api))}")
    if asked_model is not None and not isinstance(asked_model, str):
        raise _wrong("model", "a text")
    model, warning = choose_model(asked_model, configured, in_address)
    if not is_model_name(model):
        raise _wrong("model", "the name of a model")
    if warning and asked_model:
        warnings.append(warning)
    if given.get("n") not in (None, 1, "1"):
        warnings.append(f"n={excerpt(str(given['n']), 20)} is left out: Gemini has no field for the number of images")
    image, flat, config = _config(given, warnings)
    left_out = sorted(name for name in given if name not in _KNOWN and name not in _EXTRAS)
    if left_out and not _prompt(given):
        warnings.append(f"left out, as Gemini does not know it: {excerpt(', '.join(left_out), 200)}")
    return Asked(
        api=cast(Api, asked_api),
        model=model,
        contents=contents,
        image=image,
        flat=flat,
        config=config,
        body=_body(given),
        warnings=tuple(warnings),
    )


def sources(asked: Asked) -> list[Source]:
    """Every image that is to be brought into the request, once each, in order."""
    found = [
        part["inlineData"]
        for content in asked.contents
        for part in content["parts"]
        if isinstance(part.get("inlineData"), Source)
    ]
    return list(dict.fromkeys(found))


def with_images(asked: Asked, images: dict[Source, dict[str, str]]) -> Asked:
    """``asked`` with its sources replaced by ``{mimeType, data}``."""

    def filled(part: dict[str, Any]) -> dict[str, Any]:
        source = part.get("inlineData")
        return part | {"inlineData": images[source]} if isinstance(source, Source) else part

    contents = [content | {"parts": [filled(part) for part in content["parts"]]} for content in asked.contents]
    return msgspec.structs.replace(asked, contents=contents)


def _contents(given: dict[str, Any]) -> list[dict[str, Any]]:
    prompt, native = _prompt(given), given.get("contents")
    if prompt:
        return [{"role": "user", "parts": [{"text": prompt}, *_images(given)]}]
    if not native:
        raise InvalidJob("the payload has no prompt (nor text, nor contents)", reason="missing_required_field")
    if not isinstance(native, list) or not all(isinstance(content, dict) for content in native):
        raise _wrong("contents", "a list of objects with parts")
    contents = []
    for index, content in enumerate(native):
        parts = content.get("parts")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise _wrong(f"contents[{index}].parts", "a list of objects that is not empty")
        contents.append({"role": "user"} | content | {"parts": [_part(part, index) for part in parts]})
    contents[-1]["parts"] += _images({name: item for name, item in given.items() if name != "contents"})
    return contents


def _prompt(given: dict[str, Any]) -> str:
    return next((p for p in (given.get("prompt"), given.get("text")) if isinstance(p, str) and p), "")


def _part(part: dict[str, Any], index: int) -> dict[str, Any]:
    for name, kind in (("text", str), ("inlineData", dict), ("fileData", dict)):
        if name in part and not isinstance(part[name], kind):
            raise _wrong(f"contents[{index}].parts", f"a list of objects whose {name} is a {kind.__name__}")
    if "fileData" in part:
        _file(part["fileData"])
    return part | {"inlineData": _inline(part["inlineData"])} if "inlineData" in part else part


def _inline(inline: dict[str, Any]) -> Source | dict[str, Any]:
    """Images by reference as sources; base64 whose type is said stays as it is."""
    kind = inline.get("mimeType") if isinstance(inline.get("mimeType"), str) else None
    url, data = inline.get("imageUrl"), inline.get("data")
    if isinstance(url, str) and url:
        return Source(url, kind)
    if not isinstance(data, str) or not data:
        raise _wrong("inline_data", "an object with image_url, or with mime_type and data")
    if kind is None or data[:8].lower().startswith(("data:", "https:", "http:")):
        return Source(data, kind)
    return {"mimeType": kind, "data": data}


def _file(file: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(file.get("fileUri"), str):
        raise _wrong("file_data", "an object with file_uri")
    return file


def _images(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts for every image in a payload: first those under their own names, then whatever is deeper."""
    named = [item for name in _IMAGES for item in _items(given.get(name))]
    parts = [{"inlineData": Source(item)} for item in named if isinstance(item, str)]
    for item in named:
        if isinstance(item, dict) and isinstance(url := item.get("imageUrl") or item.get("url"), str):
            parts.append({"inlineData": Source(url)})
        elif not isinstance(item, str | dict):
            raise _wrong("images", "a list of URLs, data URLs or base64 texts")
    return parts + list(_deep(given))


def _deep(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``inlineData`` and ``fileData`` at any depth, in the order in which they are written."""
    waiting: list[Any] = [given]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("inlineData"), dict):
                yield {"inlineData": _inline(value["inlineData"])}
            if isinstance(value.get("fileData"), dict):
                yield {"fileData": _file(value["fileData"])}
            waiting += reversed([item for name, item in value.items() if name not in ("inlineData", "fileData")])
        elif isinstance(value, list):
            waiting += reversed(value)


def _config(given: dict[str, Any], warnings: list[str]) -> tuple[dict[str, str], bool, dict[str, Any]]:
    config = given.get("generationConfig") or {}
    if not isinstance(config, dict):
        raise _wrong("generationConfig", "an object")
    config = numbers(config | {name: given[name] for name in _CONFIG if given.get(name) is not None}, _NUMBERS)
    old, newer = config.pop("imageConfig", None) or {}, config.pop("responseFormat", None) or {}
    flat = newer.get("image") if isinstance(newer, dict) else None
    image = {}
    for said in (old, flat, given):
        for name in (*_IMAGE, "mimeType") if said is flat else _IMAGE:
            value = said.get(name) if isinstance(said, dict) else None
            if value is not None:
                image[name] = str(value)
    if "imageSize" in image:
        image["imageSize"] = image["imageSize"].upper()  # the letter K is upper case
    if isinstance(flat, dict) and flat.get("delivery", "inline") != "inline":
        warnings.append("delivery is left out: the image is taken from the answer and saved")
    return image, isinstance(flat, dict), config


def _body(given: dict[str, Any]) -> dict[str, Any]:
    body = {name: given[name] for name in _BODY if given.get(name) is not None}
    if isinstance(instruction := body.get("systemInstruction"), str):
        body["systemInstruction"] = {"parts": [{"text": instruction}]}
    return body


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _wrong(name: str, wanted: str) -> InvalidJob:
    return InvalidJob(f"payload.{name} must be {wanted}", reason="invalid_format")
