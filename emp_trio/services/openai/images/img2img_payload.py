"""What an ``openai_img2img`` job brings: images and a mask under the many names that submitters use, and what is to
become of them (OpenAI reference 7, 8.2; connector reference 4.4). Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import excerpt
from emp_trio.services.openai.image_options import ImageOptions, image_options, image_prompt

MOST_INPUTS: Final = 16

_IMAGES: Final = "images image image_urls image_url image_base64 base64 file_ids file_id".split()
_MASKS: Final = "mask mask_url mask_image mask_file_id".split()
_MEMBERS: Final = "file_id image_url url base64 b64_json data".split()  # of an image that is given as an object
_FILE_ID: Final = re.compile(r"file[-_][A-Za-z0-9_-]{4,100}")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An image that has not been looked at: a data URL, base64, a URL, or the id of a file at OpenAI."""

    text: str
    file_id: bool


class EditJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a job wants.

    Attributes:
        images: at least one; each only once.
        mask: where to change the first image, or None.
        options: of the image to make; ``input_fidelity`` is in its ``fields`` where the model takes it.
        metadata: the payload's own.
    """

    prompt: str
    images: tuple[Source, ...]
    mask: Source | None
    options: ImageOptions
    metadata: Any = None


def edit_job(payload: dict[str, Any], *, image_model: str, size: str, quality: str, today: datetime.date) -> EditJob:
    """Read a payload.

    Args:
        payload: ``prompt``, ``text`` or ``description``; images in ``images`` or one of its other names, each a text
            or an object with an ``image_url``, ``url``, ``base64`` or ``file_id``; ``mask``; the options of
            :func:`~emp_trio.services.openai.image_options.image_options`; ``input_fidelity``.
        image_model, size, quality, today: as of ``image_options``.

    Raises:
        InvalidJob: there is no prompt or no image, there are too many, or one of them is nothing of the kind.
    """
    options = image_options(payload, image_model=image_model, size=size, quality=quality, today=today)
    images = _sources(payload, _IMAGES)
    if not images:
        raise InvalidJob("the payload has no images (nor an image)", reason="missing_required_field")
    if len(images) > MOST_INPUTS:
        raise InvalidJob(f"the payload has {len(images)} images; OpenAI takes {MOST_INPUTS}")
    masks = _sources(payload, _MASKS)
    if len(masks) > 1:
        raise InvalidJob("the payload has more than one mask")
    return EditJob(
        prompt=image_prompt(payload, "prompt", "text", "description"),
        images=images,
        mask=masks[0] if masks else None,
        options=_with_fidelity(options, payload.get("input_fidelity")),
        metadata=payload.get("metadata"),
    )


def _sources(payload: dict[str, Any], names: list[str]) -> tuple[Source, ...]:
    found: dict[Source, None] = {}
    for name in names:
        value = payload.get(name)
        for item in value if isinstance(value, list) else [] if value in (None, "") else [value]:
            found[_source(item, name)] = None
    return tuple(found)


def _source(item: Any, name: str) -> Source:
    file_id = name.endswith(("file_id", "file_ids"))
    if isinstance(item, dict):
        member = next((m for m in _MEMBERS if item.get(m)), None)
        if member is None:
            raise InvalidJob(
                f"payload.{name} has an object without any of {', '.join(_MEMBERS)}", reason="invalid_format"
            )
        file_id, item = member == "file_id", item[member]
        if isinstance(item, dict):  # as in a chat message: {"image_url": {"url": ...}}
            item = item.get("url")
    if not isinstance(item, str) or not item.strip():
        raise InvalidJob(
            f"payload.{name} has {type(item).__name__} where an image is expected", reason="invalid_format"
        )
    return Source(text=item.strip(), file_id=file_id or _FILE_ID.fullmatch(item.strip()) is not None)


def _with_fidelity(options: ImageOptions, fidelity: Any) -> ImageOptions:
    """``input_fidelity`` goes only to the models that take it; all later ones refuse it (OpenAI reference 7)."""
    if fidelity is None:
        return options
    if options.model.startswith("gpt-image-1.5") or (options.model == "gpt-image-1-mini" and fidelity == "low"):
        return msgspec.structs.replace(options, fields=options.fields | {"input_fidelity": fidelity})
    warning = f"input_fidelity={excerpt(str(fidelity), 20)!r} is left out: {options.model} does not take it"
    return msgspec.structs.replace(options, warnings=(*options.warnings, warning))
