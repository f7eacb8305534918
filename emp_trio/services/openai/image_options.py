"""Image options of a job, as the API names them (OpenAI reference 7, 8.1). Pure.

The image tool and the Images API take the same options under the same names; only ``n`` is the Images API's alone.
"""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import excerpt
from emp_trio.services.openai.models import choose_image_model, is_image_model

MOST_IMAGES: Final = 10

_OPTIONS: Final = "size quality background output_format output_compression moderation complexity".split()
_QUALITIES: Final = {"standard": "medium", "hd": "high"}  # words of DALL-E, which GPT image models refuse
_FORMATS: Final = {"jpg": "jpeg"}


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How images are to be made.

    Attributes:
        model: the image model.
        outer_model: the text model that the job wants to call it, or None.
        fields: options under the API's names, as they are sent.
        n: images wanted.
        warnings: what was changed or left out, for the result and the log.
    """

    model: str
    outer_model: str | None
    fields: dict[str, Any]
    n: int
    warnings: tuple[str, ...] = ()


def image_prompt(payload: dict[str, Any], *names: str) -> str:
    """The prompt: the first of the members ``names`` that is a text.

    Raises:
        InvalidJob: there is none.
    """
    found = next((p for name in names if isinstance(p := payload.get(name), str) and p), None)
    if found is None:
        raise InvalidJob(
            f"the payload has no {names[0]}{f' (nor {names[1]})' if names[1:] else ''}", reason="missing_required_field"
        )
    return found


def image_options(
    payload: dict[str, Any], *, image_model: str, size: str, quality: str, today: datetime.date
) -> ImageOptions:
    """The options of an image job.

    ``model`` may name an image model, or the text model that is to call one. Words of DALL-E are translated, and what
    only the service can judge (a size, a quality, a combination) goes to it as it is.

    Args:
        payload: the job's; members of another type than the API's count as absent.
        image_model, size, quality: used where the payload does not say.
        today: decides whether an image model still exists.

    Raises:
        InvalidJob: ``n`` or the compression is out of range.
    """
    warnings = []
    asked = payload.get("model") if isinstance(payload.get("model"), str) else None
    outer_model = asked if asked and not is_image_model(asked) else None
    model, warning = choose_image_model(asked if asked and outer_model is None else image_model, today=today)
    if warning:
        warnings.append(warning)
    fields = {"size": size, "quality": quality} | _fields(payload)
    fields["size"] = fields["size"].strip().lower()
    fields["quality"] = _QUALITIES.get(fields["quality"], fields["quality"])
    if "output_format" in fields:
        fields["output_format"] = _FORMATS.get(fields["output_format"], fields["output_format"])
    n = _number(payload, "n", 1, MOST_IMAGES)
    return ImageOptions(
        model=model, outer_model=outer_model, fields=fields, n=1 if n is None else n, warnings=tuple(warnings)
    )


def image_tool(options: ImageOptions, **more: Any) -> dict[str, Any]:
    """The image tool of ``POST /responses``, with ``more`` options of it."""
    return {"type": "image_generation", "model": options.model} | options.fields | more


def _fields(payload: dict[str, Any]) -> dict[str, Any]:
    fields = {name: payload[name] for name in _OPTIONS if isinstance(payload.get(name), str) and payload[name]}
    fields.pop("output_compression", None)
    for name in ("output_compression", "compression"):
        compression = _number(payload, name, 0, 100)
        if compression is not None:
            fields.setdefault("output_compression", compression)
    return fields


def _number(payload: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = payload.get(name)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 4:
        value = int(value)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidJob(
            f"payload.{name} must be a whole number from {least} to {most}, not {excerpt(str(value), 20)!r}",
            reason="invalid_payload",
        )
    return value
