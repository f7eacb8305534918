"""Build requests for ``openai_img2img`` jobs. Pure.

Reads images and mask under the many names that submitters use; builds requests of the Responses API and both forms
of the Images API (OpenAI reference 4.2, 7, 8.2; connector reference 4.4).
"""

from __future__ import annotations

import base64
import datetime
import re
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.protocols.http.multipart import FilePart, multipart
from emp_trio.protocols.urls import shown_url
from emp_trio.secrets import excerpt
from emp_trio.services.inputs import InputFile, is_url
from emp_trio.services.openai.image_options import ImageOptions, image_options, image_prompt
from emp_trio.services.openai.responses.request import ResponsesRequest, image_request

MOST_INPUTS: Final = 16

LARGEST_IN_JSON: Final = 15_728_000
"""Bytes of an image in the Images API's JSON, where its data URL may have 20 971 520 characters."""

_IMAGES: Final = "images image image_urls image_url image_base64 base64 file_ids file_id".split()
_MASKS: Final = "mask mask_url mask_image mask_file_id".split()
_MEMBERS: Final = "file_id image_url url base64 b64_json data".split()  # of an image that is given as an object
_FILE_ID: Final = re.compile(r"file[-_][A-Za-z0-9_-]{4,100}")
_NOT_IN_EDITS: Final = frozenset({"complexity"})


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


Input = InputFile | Source
"""An image that has been looked at, or a source: that of a file at OpenAI, which needs no look."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """The images of a job, and its mask."""

    images: tuple[Input, ...]
    mask: Input | None


class EditsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of ``POST /images/edits``; ``record`` is the same without the bytes of images."""

    content_type: str
    content: bytes
    record: dict[str, Any]
    warnings: tuple[str, ...]


def edit_response(job: EditJob, inputs: Inputs, *, job_id: str, outer_model: str) -> ResponsesRequest:
    """The background response in which a text model is made to edit the images with the image tool."""
    return _response(job, _references(inputs), job_id, outer_model)


def edit_response_record(job: EditJob, inputs: Inputs, *, job_id: str, outer_model: str) -> dict[str, Any]:
    """The body of :func:`edit_response` as a result keeps it: without the bytes of images, URLs without queries."""
    return _response(job, _notes(inputs), job_id, outer_model).body


def edits_request(job: EditJob, inputs: Inputs) -> EditsRequest:
    """The request of the Images API. Files go as a form, the safer way for large ones (OpenAI reference 8.2); ids of
    files and ``moderation`` are known to the JSON form only.

    Raises:
        InvalidJob: an image is too large for the JSON form, and has to go by it.
    """
    fields = {"model": job.options.model, "prompt": job.prompt, "n": job.options.n} | job.options.fields
    warnings = tuple(f"{name} is left out: images/edits does not take it" for name in _NOT_IN_EDITS & fields.keys())
    fields = {name: value for name, value in fields.items() if name not in _NOT_IN_EDITS}
    given = [image for image in (*inputs.images, inputs.mask) if image is not None]
    files = [image for image in given if isinstance(image, InputFile)]
    if "moderation" not in fields and len(files) == len(given):
        several = len(inputs.images) > 1
        names = ["image[]" if several else "image"] * len(inputs.images) + ["mask"]
        parts = [
            FilePart(field=name, filename=file.name, media_type=file.media_type, data=file.data)
            for name, file in zip(names, files, strict=False)
        ]
        content_type, content = multipart([(name, str(value)) for name, value in fields.items()], parts)
    else:
        if any(len(file.data) > LARGEST_IN_JSON for file in files):
            why = "moderation" if "moderation" in fields else "ids of files"
            raise InvalidJob(f"an image is larger than the {LARGEST_IN_JSON} bytes that OpenAI takes along with {why}")
        content_type, content = "application/json", msgspec.json.encode(fields | _edits_json(_references(inputs)))
    return EditsRequest(
        content_type=content_type, content=content, record=fields | _edits_json(_notes(inputs)), warnings=warnings
    )


class _Described(msgspec.Struct, frozen=True, kw_only=True):
    """Images and mask as the API's JSON has them."""

    images: list[dict[str, str]]
    mask: dict[str, str] | None


def _response(job: EditJob, described: _Described, job_id: str, outer_model: str) -> ResponsesRequest:
    content: list[dict[str, Any]] = [{"type": "input_text", "text": job.prompt}]
    content += [{"type": "input_image", "detail": "auto"} | image for image in described.images]
    fields = job.options.fields | {"action": "edit"}
    if described.mask is not None:
        fields["input_image_mask"] = described.mask
    return image_request(
        [{"type": "message", "role": "user", "content": content}],
        msgspec.structs.replace(job.options, fields=fields),
        job_id=job_id,
        outer_model=outer_model,
        metadata=job.metadata,
    )


def _edits_json(described: _Described) -> dict[str, Any]:
    masked = {} if described.mask is None else {"mask": described.mask}
    return {"images": described.images} | masked


def _references(inputs: Inputs) -> _Described:
    return _Described(
        images=[_reference(image) for image in inputs.images],
        mask=None if inputs.mask is None else _reference(inputs.mask),
    )


def _reference(image: Input) -> dict[str, str]:
    if isinstance(image, InputFile):
        return {"image_url": f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"}
    assert image.file_id, "an input that nobody has looked at"
    return {"file_id": image.text}


def _notes(inputs: Inputs) -> _Described:
    return _Described(
        images=[_note(image) for image in inputs.images],
        mask=None if inputs.mask is None else _note(inputs.mask),
    )


def _note(image: Input) -> dict[str, str]:
    if isinstance(image, InputFile):
        return {"image_url": f"<{image.media_type}, {len(image.data)} bytes>"}
    if image.file_id:
        return {"file_id": image.text}
    return {"image_url": shown_url(image.text) if is_url(image.text) else f"<{len(image.text)} characters>"}
