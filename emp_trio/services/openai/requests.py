"""Job payloads as bodies of ``POST /responses`` (OpenAI reference 4.1, 7, 15; connector reference 4.3, 4.6). Pure."""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.services.openai.models import choose_image_model, is_image_model

_EXTRAS: Final = frozenset(
    "ctx bucket prefix filename provider cdnUrl workflow_name user_id generation_context save_assets".split()
)
_STREAMING: Final = frozenset(("stream", "stream_options"))
_IMAGE_OPTIONS: Final = "size quality background output_format output_compression moderation complexity".split()
_QUALITIES: Final = {"standard": "medium", "hd": "high"}  # words of DALL-E, which GPT image models refuse
_FORMATS: Final = {"jpg": "jpeg"}
_MOST_METADATA: Final = 16
_LONGEST_METADATA: Final = 512


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A body to send, and what to know about it.

    Attributes:
        body: the JSON body.
        picture_wanted: the model has no choice but to make a picture.
        image_model: the image model it asks for, or None.
        warnings: what was changed or left out, for the result and the log.
    """

    body: dict[str, Any]
    picture_wanted: bool
    image_model: str | None = None
    warnings: tuple[str, ...] = ()


def responses_request(payload: dict[str, Any], *, job_id: str, default_model: str) -> ResponsesRequest:
    """The request of an ``openai_responses`` job: its payload, or ``payload.dynamic_json``, as it stands.

    Only these change: EmProps extras go; ``background`` and ``store`` are set, without which the response could not be
    polled; streaming is taken out; ``model`` is added where it is missing, and the job's id to ``metadata``.

    Raises:
        InvalidJob: the payload is empty, or ``dynamic_json`` is no object.
    """
    given = payload.get("dynamic_json", payload)
    if not isinstance(given, dict):
        raise InvalidJob(f"payload.dynamic_json must be an object, not {type(given).__name__}", reason="invalid_format")
    body = {name: value for name, value in given.items() if name not in _EXTRAS and name not in _STREAMING}
    if not body:
        raise InvalidJob(
            "the payload has nothing to send to OpenAI: give input, and what else the Responses API takes",
            reason="missing_required_field",
        )
    warnings = ("stream is left out: the response runs in the background",) if given.get("stream") else ()
    body |= {"background": True, "store": True, "metadata": _metadata(body.get("metadata"), job_id)}
    if not body.get("model"):
        body["model"] = default_model
    return ResponsesRequest(
        body=body, picture_wanted=_picture_wanted(body), image_model=_image_model(body), warnings=warnings
    )


def image_request(
    payload: dict[str, Any],
    *,
    job_id: str,
    outer_model: str,
    image_model: str,
    size: str,
    quality: str,
    today: datetime.date,
) -> ResponsesRequest:
    """The request of an ``openai_image`` job: a text model that is made to call the image tool.

    Args:
        payload: ``prompt`` or ``description``; ``model`` (an image model goes to the tool, any other is the outer one);
            options of the tool; ``metadata``.
        outer_model, image_model, size, quality: used where the payload does not say.
        today: decides whether an image model still exists.

    Raises:
        InvalidJob: there is no prompt.
    """
    prompt = next((p for p in (payload.get("prompt"), payload.get("description")) if isinstance(p, str) and p), None)
    if prompt is None:
        raise InvalidJob("the payload has no prompt (nor a description)", reason="missing_required_field")
    warnings = []
    asked = payload.get("model") if isinstance(payload.get("model"), str) else None
    if asked and is_image_model(asked):
        image_model = asked
    elif asked:
        outer_model = asked
    image_model, warning = choose_image_model(image_model, today=today)
    if warning:
        warnings.append(warning)
    if payload.get("n") not in (None, 1, "1"):
        warnings.append(f"n={payload['n']!r} is left out: the image tool makes one picture per call")
    if payload.get("save_assets") is False:
        warnings.append("save_assets: false is left out: a result never carries the bytes of a picture")
    tool = {"type": "image_generation", "model": image_model, "size": size, "quality": quality}
    tool |= _tool_options(payload)
    tool["quality"] = _QUALITIES.get(tool["quality"], tool["quality"])
    body = {
        "model": outer_model,
        "input": prompt,
        "background": True,
        "store": True,
        "tools": [tool],
        "tool_choice": {"type": "image_generation"},
        "metadata": _metadata(payload.get("metadata"), job_id),
    }
    return ResponsesRequest(body=body, picture_wanted=True, image_model=image_model, warnings=tuple(warnings))


def _tool_options(payload: dict[str, Any]) -> dict[str, Any]:
    options = {name: payload[name] for name in _IMAGE_OPTIONS if isinstance(payload.get(name), str | int)}
    if isinstance(options.get("background"), bool):  # the Responses field of that name, not the tool's option
        del options["background"]
    if "output_compression" not in options and isinstance(payload.get("compression"), int):
        options["output_compression"] = payload["compression"]
    if "output_format" in options:
        options["output_format"] = _FORMATS.get(options["output_format"], options["output_format"])
    return options


def _picture_wanted(body: dict[str, Any]) -> bool:
    choice, tools = body.get("tool_choice"), body.get("tools")
    if isinstance(choice, dict):
        return choice.get("type") == "image_generation"
    kinds = [t.get("type") for t in tools if isinstance(t, dict)] if isinstance(tools, list) else []
    return choice == "required" and kinds == ["image_generation"]


def _image_model(body: dict[str, Any]) -> str | None:
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and tool.get("type") == "image_generation" and isinstance(tool.get("model"), str):
            return str(tool["model"])
    return None


def _metadata(given: Any, job_id: str) -> Any:
    """The payload's own metadata with the job's id, as far as there is room for it (reference 3.5)."""
    if not isinstance(given, dict | None):
        return given  # wrong, but that is for the service to say
    metadata = dict(given or {})
    if len(metadata) < _MOST_METADATA:
        metadata.setdefault("job_id", job_id[:_LONGEST_METADATA])
    return metadata
