"""Job payloads as bodies of ``POST /responses`` (OpenAI reference 4.1, 7, 15; connector reference 4.3, 4.6). Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.services.lenient import numbers
from emp_trio.services.openai.errors import refuses
from emp_trio.services.openai.image_options import ImageOptions, image_tool

_EXTRAS: Final = frozenset(
    "ctx bucket prefix filename provider cdnUrl workflow_name user_id generation_context save_assets".split()
)
_NUMBERS: Final = frozenset("temperature top_p max_output_tokens max_tool_calls top_logprobs".split())
_STREAMING: Final = frozenset(("stream", "stream_options"))
_MOST_METADATA: Final = 16
_LONGEST_METADATA: Final = 512


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A body to send, and what to know about it.

    Attributes:
        body: the JSON body.
        image_wanted: the model has no choice but to make an image.
        image_model: the image model it asks for, or None.
        warnings: what was changed or left out, for the result and the log.
    """

    body: dict[str, Any]
    image_wanted: bool
    image_model: str | None = None
    warnings: tuple[str, ...] = ()


def responses_request(payload: dict[str, Any], *, job_id: str, default_model: str) -> ResponsesRequest:
    """The request of an ``openai_responses`` job: its payload, or ``payload.dynamic_json``, as it stands.

    Only these change: EmProps extras go; texts become numbers where numbers are meant; ``background`` and ``store`` are
    set, without which the response could neither be polled nor a lost stream be resumed (a stream whose payload says
    ``background: false`` is left as it is); ``model`` is added where it is missing, and the job's id to ``metadata``.

    Raises:
        InvalidJob: the payload is empty, or ``dynamic_json`` is no object.
    """
    given = payload.get("dynamic_json", payload)
    if not isinstance(given, dict):
        raise InvalidJob(f"payload.dynamic_json must be an object, not {type(given).__name__}", reason="invalid_format")
    streamed = given.get("stream") is True
    left_out = _EXTRAS if streamed else _EXTRAS | _STREAMING
    body = numbers({name: value for name, value in given.items() if name not in left_out}, _NUMBERS)
    if not body.keys() - _STREAMING:
        raise InvalidJob(
            "the payload has nothing to send to OpenAI: give input, and what else the Responses API takes",
            reason="missing_required_field",
        )
    warnings = ("stream is left out: only true turns it on",) if given.get("stream") and not streamed else ()
    if not (streamed and body.get("background") is False):
        body |= {"background": True, "store": True}
    body["metadata"] = _metadata(body.get("metadata"), job_id)
    if not body.get("model"):
        body["model"] = default_model
    return ResponsesRequest(
        body=body, image_wanted=_image_wanted(body), image_model=_image_model(body), warnings=warnings
    )


def image_request(
    content: str | list[dict[str, Any]], options: ImageOptions, *, job_id: str, outer_model: str, metadata: Any = None
) -> ResponsesRequest:
    """A request for one image, in the background: a text model that is made to call the image tool.

    Args:
        content: the prompt, or input items.
        options: of the image; ``n`` has no place here, the tool makes one image per call.
        outer_model: used where the job does not say.
        metadata: the payload's own.
    """
    body = {
        "model": options.outer_model or outer_model,
        "input": content,
        "background": True,
        "store": True,
        "tools": [image_tool(options)],
        "tool_choice": {"type": "image_generation"},
        "metadata": _metadata(metadata, job_id),
    }
    return ResponsesRequest(body=body, image_wanted=True, image_model=options.model, warnings=options.warnings)


def as_stream(request: ResponsesRequest, *, background: bool, partial_images: int) -> ResponsesRequest:
    """An image request as a stream, with as many partial images; without ``background`` it can't be resumed."""
    body = {name: value for name, value in request.body.items() if name not in ("background", "store")}
    body |= {"stream": True, "tools": [tool | {"partial_images": partial_images} for tool in body["tools"]]}
    if background:
        body |= {"background": True, "store": True}
    return msgspec.structs.replace(request, body=body)


def plain_choice(request: ResponsesRequest, error: ServiceError) -> ResponsesRequest | None:
    """The request with ``required`` in place of the object that names its only tool, where the service refused that
    before it began; else None. Both mean the same (OpenAI reference 4.1), and some services take a text only."""
    choice, tools = request.body.get("tool_choice"), request.body.get("tools")
    only = isinstance(choice, dict) and isinstance(tools, list) and len(tools) == 1
    if not only or not (refuses(error, "tool_choice") or _lists_choices(error)):
        return None
    return msgspec.structs.replace(request, body=request.body | {"tool_choice": "required"})


def _lists_choices(error: ServiceError) -> bool:
    """Whether an error names what may be chosen, without saying of what."""
    unnamed = error.status in (400, 422) and not (error.maybe_started or error.param or isinstance(error, Refused))
    words = set(re.findall(r"[a-z]+", error.message.lower()))
    return unnamed and {"auto", "required", "none"} <= words


def _image_wanted(body: dict[str, Any]) -> bool:
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
    """The payload's own metadata with the job's id, as far as there is room for it (OpenAI reference 3.5)."""
    if not isinstance(given, dict | None):
        return given  # wrong, but that is for the service to say
    metadata = dict(given or {})
    if len(metadata) < _MOST_METADATA:
        metadata.setdefault("job_id", job_id[:_LONGEST_METADATA])
    return metadata
