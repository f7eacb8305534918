"""A response object as an answer, or as the reason why there is none (OpenAI reference 4.3, 4.4, 7, 11, 12). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.parsing import parse_or_empty
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.error_shapes import quoted
from emp_trio.services.image_fields import image_in
from emp_trio.services.message_content import Words, read_content
from emp_trio.services.openai.errors import failed_response, refusal
from emp_trio.services.openai.responses.messages import (
    ImageFacts,
    IncompleteDetails,
    ItemParts,
    Response,
    Spent,
    TokenDetails,
    Tokens,
    ToolUsage,
)
from emp_trio.services.outputs import Output
from emp_trio.services.work_states import phase_of

_QUOTED: Final = 500  # characters of a model's words in an error
_IMAGES: Final = ("image_generation_call", "output_image", "image", "image_url")
MEDIA_TYPES: Final = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "svg": "image/svg+xml",
}


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image in a response, and what the service says about it; ``data`` is base64, a data URL, or a URL."""

    data: str
    media_type: str | None
    revised_prompt: str | None
    size: str | None
    quality: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished response holds.

    Attributes:
        text: all words of it; those of the final answer only, where the service marks them.
        images: in the order of the output.
        truncated: the model was stopped before its end.
        stopped: the service's word for that, or "".
        model: the model that answered.
        usage: in the project's shape (OpenAI reference 11).
        skipped: types of output items that are not understood.
        request_ids: OpenAI's ids of the calls that it took, for its support.
        raw: what the service sent, with everything in it.
    """

    response_id: str
    text: str
    images: tuple[Image, ...]
    truncated: bool
    stopped: str = ""
    model: str | None
    usage: dict[str, Any]
    skipped: tuple[str, ...]
    request_ids: tuple[str, ...] = ()
    raw: Mapping[str, Any] = {}


def read_response(response: Mapping[str, Any], *, image_wanted: bool, image_model: str | None = None) -> Answer | None:
    """What a response object says.

    Args:
        response: the object, whatever its members are.
        image_wanted: the request left the model no choice but to make an image, so that words instead of one are a
            refusal.
        image_model: the image model asked for, for the usage.

    Returns:
        the answer, or None while there is none yet.

    Raises:
        Refused: the service declined, in one of its many ways.
        ServiceError: it failed, was cancelled, or ended without what was asked for.

    What was asked for and is there is the answer, however the response has ended: it is paid for.
    """
    said = parse_or_empty(Response, response)
    items, status = said.items(), said.status
    failure: ServiceError | None = None
    stopped: str | None = None
    match phase_of(status):
        case "failed":
            failure = failed_response(said.error)
        case "cancelled":
            failure = ServiceError("the response was cancelled at OpenAI", code="cancelled", retry=False)
        case "expired":
            failure = ServiceError(
                f"the response ended at OpenAI without an answer ({excerpt(str(status), 40)})",
                code=excerpt(str(status), 40),
                type="response_error",
                reason="missing_expected_data",
            )
        case "stopped":
            why = said.incomplete_details
            stopped = excerpt(str((why.reason if isinstance(why, IncompleteDetails) else why) or "unknown"), 100)
        case "done":
            pass
        case "unknown" if items and not status:  # odd proxies leave the status out
            pass
        case "unknown" if items and _has_what_was_asked_for(items, image_wanted):
            stopped = excerpt(str(status), 40)
        case _:
            return None
    if failure is not None:
        if not _has_what_was_asked_for(items, image_wanted):
            raise failure
        stopped = failure.code or str(status)
    return _answer(said, response, image_wanted, image_model, stopped=stopped)


def _answer(
    said: Response,
    response: Mapping[str, Any],
    image_wanted: bool,
    image_model: str | None,
    *,
    stopped: str | None,
) -> Answer:
    items = said.items()
    images = tuple(_images(items))
    text = _text(items) or (said.output_text or "").strip()
    if stopped == "content_filter" and not images:
        raise Refused("OpenAI's content filter stopped the answer", reason="safety_filter", code="content_filter")
    if not images:
        _raise_refusal(items)
        if image_wanted:
            raise _no_image(text, stopped)
        if not text:
            raise _nothing(items, stopped)
    return Answer(
        response_id=str(said.id or ""),
        text=text,
        images=images,
        truncated=stopped is not None,
        stopped=stopped or "",
        model=said.model or None,
        usage=usage(response, image_model),
        skipped=tuple(sorted({str(i.get("type")) for i in items} - {"message", "reasoning", "image_generation_call"})),
        raw=response,
    )


def _has_what_was_asked_for(items: list[dict[str, Any]], image_wanted: bool) -> bool:
    return any(_images(items)) or (not image_wanted and bool(_text(items)))


def _images(items: list[dict[str, Any]]) -> Iterator[Image]:
    """Images by what is there: the status of an item often still says ``generating`` when all is done, and gateways
    put them into the parts of a message."""
    for item in items:
        if item.get("type") == "image_generation_call" and isinstance(result := item.get("result"), str | list):
            sources = result if isinstance(result, list) else [result]
            given = [Output(source=one) if isinstance(one, str) else image_in(one) for one in sources]
            yield from (_image(item, one) for one in given if one is not None and one.source)
        elif item.get("type", "image") in _IMAGES and (found := image_in(item)) is not None:
            yield _image(item, found)
        parts = parse_or_empty(ItemParts, item)
        for part in parts.content + parts.images:
            if part.get("type") in _IMAGES and (found := image_in(part)) is not None:
                yield _image(part, found)


def _image(item: Mapping[str, Any], found: Output) -> Image:
    about = parse_or_empty(ImageFacts, item)
    return Image(
        data=found.source,
        media_type=MEDIA_TYPES.get(about.output_format) or found.media_type,
        revised_prompt=about.revised_prompt or None,
        size=about.size or None,
        quality=about.quality or None,
    )


def _words(items: list[dict[str, Any]]) -> list[Words]:
    """The words of all content parts, of final answers only where messages say which those are. Some services give a
    message's content as a text, or parts in place of messages."""
    messages = [item for item in items if item.get("type") == "message" or ("type" not in item and "content" in item)]
    final = [message for message in messages if message.get("phase") == "final_answer"]
    contents = [message.get("content") for message in final or messages]
    contents += [item for item in items if item.get("type") in ("output_text", "text")]
    parts = [part for content in contents for part in (content if isinstance(content, list) else [content])]
    return [read_content(part) for part in parts]


def _text(items: list[dict[str, Any]]) -> str:
    return "\n".join(words.text for words in _words(items) if words.text).strip()


def _raise_refusal(items: list[dict[str, Any]]) -> None:
    for item in items:
        error = item.get("error")
        if item.get("type") == "image_generation_call" and isinstance(error, dict):
            raise failed_response(error)
    refusals = [words.refusal for words in _words(items) if words.refusal]
    if refusals:
        raise refusal({}, f"the model refused: {_quote(' '.join(refusals))}")


def _no_image(text: str, stopped: str | None) -> ServiceError:
    if stopped is not None:
        return ServiceError(
            f"OpenAI stopped ({stopped}) before there was an image; the same request would stop again",
            type="response_error",
            reason="missing_expected_data",
            retry=False,
        )
    if text:
        return Refused(f"the model answered in words instead of making an image: {_quote(text)}", code="no_image")
    return ServiceError(
        "OpenAI completed the response with neither an image nor words",
        type="response_error",
        reason="missing_expected_data",
    )


def _nothing(items: list[dict[str, Any]], stopped: str | None) -> ServiceError:
    calls = sorted({str(item.get("name")) for item in items if item.get("type") == "function_call"})
    if calls:
        named = excerpt(", ".join(calls), _QUOTED)
        return ServiceError(
            f"the model wants to call functions ({named}), which this connector does not run",
            type="validation_error",
            reason="unsupported_operation",
            retry=False,
        )
    if stopped is not None:
        return ServiceError(
            f"OpenAI stopped ({stopped}) before there was an answer; the same request would stop again",
            type="response_error",
            reason="missing_expected_data",
            retry=False,
        )
    unknown = [part for words in _words(items) for part in words.unknown]
    if unknown:
        return ServiceError(
            f"OpenAI completed the response with content of a kind that is not understood: {quoted(unknown)}",
            type="response_error",
            reason="missing_expected_data",
            retry=False,
        )
    kinds = ", ".join(sorted({str(item.get("type")) for item in items})) or "nothing"
    return ServiceError(
        f"OpenAI completed the response without words or an image; its output was: {excerpt(kinds, _QUOTED)}",
        type="response_error",
        reason="missing_expected_data",
    )


def usage(response: Mapping[str, Any], image_model: str | None = None) -> dict[str, Any]:
    """Tokens in the project's shape (OpenAI reference 11): None where the service said nothing, never a guessed 0."""
    said = parse_or_empty(Spent, response)
    spent, details = said.usage or Tokens(), {}
    if (cached := (spent.input_tokens_details or TokenDetails()).cached_tokens) is not None:
        details["cached_tokens"] = cached
    if (reasoning := (spent.output_tokens_details or TokenDetails()).reasoning_tokens) is not None:
        details["reasoning_tokens"] = reasoning
    image = (said.tool_usage or ToolUsage()).image_gen
    drawn = parse_or_empty(Tokens, image)
    return {
        "input_tokens": spent.input_tokens,
        "output_tokens": spent.output_tokens,
        "total_tokens": spent.total_tokens,
        **details,
        "image": {"input_tokens": drawn.input_tokens, "output_tokens": drawn.output_tokens} if image else None,
        "model": said.model or None,
        "image_model": image_model,
    }


def _quote(text: str) -> str:
    text = one_line(text, 4 * _QUOTED)
    return text if len(text) <= _QUOTED else excerpt(text, _QUOTED - 1) + "…"
