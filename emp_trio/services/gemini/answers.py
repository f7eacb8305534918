"""Answers of either interface as images, or as the reason why there are none (Gemini reference A4, A5, A7). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.http.errors import may_have_started
from emp_trio.protocols.parsing import parse_or_empty
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.error_shapes import error_in, status_of, words_of
from emp_trio.services.gemini.errors import described_error, failed_interaction
from emp_trio.services.gemini.messages import Candidate, File, Interaction, Part, Response, Usage, several
from emp_trio.services.gemini.refusals import refusal_reason
from emp_trio.services.gemini.scrub import scrubbed
from emp_trio.services.gemini.wire import camel
from emp_trio.services.image_fields import image_in, media_type_of
from emp_trio.services.work_states import phase_of

_QUOTED: Final = 500  # characters of Gemini's words in an error

_FAILED: Final = frozenset(
    ("NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE", "MALFORMED_FUNCTION_CALL", "FINISH_REASON_UNSPECIFIED")
)
_GOOD_ENDS: Final = ("STOP", "")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image in an answer: base64, a data URL or a URL in ``data``, and what the service says it is."""

    data: str
    media_type: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished generation holds.

    Attributes:
        id: of the interaction or the response, or "".
        images: in their order, without drafts, unless there is nothing else; at least one. The last is the result.
        warnings: what is odd about it.
        text: the words beside them.
        model: the model that answered, or None.
        usage: tokens; None where the service says nothing.
        raw: the whole answer without file bytes.
    """

    id: str
    images: tuple[Image, ...]
    text: str
    model: str | None
    usage: dict[str, Any]
    raw: Any
    warnings: tuple[str, ...] = ()


def read_generated(response: Any) -> Answer:
    """What a response of ``generateContent`` says.

    Raises:
        Refused: the prompt or the image was blocked, or there are words instead of an image.
        ServiceError: it failed; ``maybe_started`` is set, as the call has run.
    """
    response = _one(response)
    if not isinstance(response, dict):
        raise _failed(f"Gemini sent {_shown(response)} where a response was expected", "invalid_response_format")
    said = parse_or_empty(Response, camel(response))
    candidates, feedback = several(said.candidates), said.prompt_feedback
    if not candidates and (stated := error_in(response)) is not None:
        raise _stated_error(response, stated)
    if feedback.block_reason and not candidates:
        word = str(feedback.block_reason)
        reason = refusal_reason(word, feedback.safety_ratings)
        raise Refused(f"Gemini blocked the prompt ({word})", reason=reason, code=word)
    if not candidates:
        raise _failed(f"Gemini answered without candidates, and without a word why: {_shown(response)}")
    parts = [part for candidate in candidates for part in candidate.parts()]
    found = tuple(_inline_images(part for part in parts if not part.thought))
    refused = any(refusal_reason(candidate.finish_reason) for candidate in candidates)
    drafts = () if found or refused else tuple(_inline_images(parts))
    if not found and not drafts:
        raise _no_image(candidates[0])
    ends = [candidate.finish_reason for candidate in candidates if candidate.finish_reason not in _GOOD_ENDS]
    return Answer(
        id=said.response_id,
        images=found or drafts,
        text=_words(parts),
        model=said.model_version or None,
        usage=usage(said.usage_metadata),
        raw=scrubbed(response),
        warnings=_odd(ends, drafts=bool(drafts)),
    )


def _one(response: Any) -> Any:
    """The response in an answer: gateways wrap it, or give the list of pieces that a stream would have brought."""
    if isinstance(response, list) and response and all(isinstance(piece, dict) for piece in response):
        merged: dict[str, Any] = {}
        for piece in response:
            merged |= {name: value for name, value in piece.items() if value is not None and name != "candidates"}
        candidates = [entry for piece in response for entry in several(piece.get("candidates")) if entry]
        return merged | ({"candidates": candidates} if candidates else {})
    if isinstance(response, dict) and "candidates" not in response and isinstance(response.get("response"), dict):
        return response["response"]
    return response


def _stated_error(response: Mapping[str, Any], stated: Mapping[str, Any]) -> ServiceError:
    """The error that an answer with a good status is: in Gemini's shape, or in that of a gateway."""
    if isinstance(response.get("error"), dict):
        error = described_error(response["error"])
    elif (status := status_of(stated)) is not None:
        error = ServiceError(f"Gemini answered with an error: {excerpt(words_of(stated), _QUOTED)}", status=status)
    else:
        error = _failed(f"Gemini answered with an error: {excerpt(words_of(stated), _QUOTED)}", retry=False)
    error.maybe_started = may_have_started(error.status or 500)
    return error


def read_interaction(interaction: Mapping[str, Any]) -> Answer | None:
    """What an interaction says.

    Returns:
        the answer, or None while there is none yet.

    Raises:
        Refused: Gemini declined, or answered in words.
        ServiceError: it failed, was cancelled, or ended without an image; ``maybe_started`` is set.
    """
    said = parse_or_empty(Interaction, interaction)
    status, failure = said.status, None
    match phase_of(status):
        case "done":
            pass
        case "failed":
            failure = failed_interaction(said.errors or said.error)
        case "cancelled":
            failure = _failed("the interaction was cancelled at Gemini", retry=False, code="cancelled")
        case "expired":
            failure = _failed(f"the interaction ended at Gemini without an image ({status})", code=status)
        case "stopped":
            failure = _failed(
                f"Gemini stopped the interaction ({status}) before there was an image; the same request would stop "
                "again",
                retry=False,
                code=status,
            )
        case "unknown" if _finished_images(said):  # whatever its word is: they have been made
            pass
        case _:
            return None
    return _ended(said, failure, interaction)


def usage(said: Any) -> dict[str, Any]:
    """Tokens in the fleet's shape: None where the service said nothing, never a guessed 0."""
    found = parse_or_empty(Usage, camel(said))
    counts = {
        "input_tokens": _first(found.prompt_token_count, found.input),
        "output_tokens": _first(found.candidates_token_count, found.output),
        "total_tokens": _first(found.total_token_count, found.total),
    }
    details = {
        "cached_tokens": _first(found.cached_content_token_count, found.cached),
        "reasoning_tokens": _first(found.thoughts_token_count, found.thought),
    }
    return counts | {name: count for name, count in details.items() if count is not None}


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _ended(said: Interaction, failure: ServiceError | None, interaction: Any) -> Answer:
    """What an interaction that has ended holds: its images, however it has ended."""
    parts, found = said.output(), _finished_images(said)
    words = _words([parse_or_empty(Part, part) for part in parts if part.get("type") == "text"])
    drafts = () if found else tuple(_images(parts))
    if not (found or drafts or words):
        drafts = tuple(_images(said.thoughts()))
    if not found and failure is not None:
        raise failure
    if not found and not drafts:
        raise (
            _in_words(words) if words else _failed("Gemini completed the interaction with neither an image nor words")
        )
    return Answer(
        id=said.id,
        images=found or drafts,
        text=words,
        model=said.model or None,
        usage=usage(said.usage),
        raw=scrubbed(interaction),
        warnings=_odd([] if failure is None else [said.status], drafts=bool(drafts)),
    )


def _finished_images(said: Interaction) -> tuple[Image, ...]:
    """Images that are no drafts. ``output_image`` is a copy of one, for those who read nothing else."""
    found = tuple(_images(part for part in said.output() if part.get("thought") is not True))
    return found or tuple(_images([said.output_image]))


def _odd(ends: list[str], *, drafts: bool) -> tuple[str, ...]:
    stopped = f"Gemini stopped ({excerpt(', '.join(ends), 100)}); the image that it had made is kept"
    return ((stopped,) if ends else ()) + (("the only image is one of Gemini's thoughts",) if drafts else ())


def _images(parts: Iterable[dict[str, Any]]) -> Iterator[Image]:
    """The images among the parts of an interaction."""
    for part in parts:
        if part.get("type", "image") != "image":
            continue
        data, kind = part.get("data"), media_type_of(part)
        if not (isinstance(data, str) and data) and (inside := image_in(part)) is not None:
            data, kind = inside.source, inside.media_type
        if isinstance(data, str) and data and _may_be_image(kind):
            yield Image(data=data, media_type=kind)


def _inline_images(parts: Iterable[Part]) -> Iterator[Image]:
    """The images among parts of ``generateContent``: data, or the address of a file."""
    for part in parts:
        for about in (part.inline_data, part.file_data):
            file, kind = parse_or_empty(File, about), media_type_of(about)
            if (data := file.data or file.file_uri) and _may_be_image(kind):
                yield Image(data=data, media_type=kind)


def _may_be_image(media_type: str | None) -> bool:
    """Whether a type is that of an image, or one that nobody knows: the bytes decide later."""
    return (media_type or "image/*").split("/", 1)[0].lower() not in ("audio", "video", "text")


def _words(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if part.text and not part.thought).strip()


def _no_image(candidate: Candidate) -> ServiceError:
    words = _words(candidate.parts())
    said = _quote(" ".join(text for text in (candidate.finish_message, words) if text))
    if candidate.finish_reason in _GOOD_ENDS:
        return _in_words(words) if words else _failed("Gemini ended with neither an image nor words")
    name = excerpt(candidate.finish_reason, 100)
    text = f"Gemini stopped ({name}) before there was an image" + (f": {said}" if said else "")
    reason = refusal_reason(name, candidate.safety_ratings)
    if reason is not None:
        return Refused(text, reason=reason, code=name)
    if name == "MAX_TOKENS":
        return _failed(f"{text}; the same request would stop again: raise maxOutputTokens", retry=False, code=name)
    return _failed(text, retry=name in _FAILED, code=name)


def _in_words(words: str) -> Refused:
    return Refused(f"Gemini answered in words instead of making an image: {_quote(words)}", code="no_image")


def _failed(
    text: str, reason: str = "missing_expected_data", *, retry: bool = True, code: str | None = None
) -> ServiceError:
    """A generation that has run and given nothing."""
    return ServiceError(text, type="response_error", reason=reason, retry=retry, code=code, maybe_started=True)


def _quote(text: str) -> str:
    text = one_line(text, 4 * _QUOTED)
    return text if len(text) <= _QUOTED else excerpt(text, _QUOTED - 1) + "…"


def _shown(value: Any) -> str:
    return _quote(msgspec.json.encode(scrubbed(value)).decode("utf-8", "replace"))
