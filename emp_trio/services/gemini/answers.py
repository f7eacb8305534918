"""Answers of either interface as images, or as the reason why there are none (Gemini reference A4, A5, A7). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.http.errors import may_have_started
from emp_trio.secrets import excerpt, one_line
from emp_trio.services.error_shapes import error_in, status_of, words_of
from emp_trio.services.gemini.errors import described_error, failed_interaction
from emp_trio.services.gemini.refusals import refusal_reason
from emp_trio.services.gemini.scrub import scrubbed
from emp_trio.services.gemini.wire import snake
from emp_trio.services.image_fields import image_in, media_type_of
from emp_trio.services.work_states import phase_of

_QUOTED: Final = 500  # characters of Gemini's words in an error

_FAILED: Final = frozenset(
    ("NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE", "MALFORMED_FUNCTION_CALL", "FINISH_REASON_UNSPECIFIED")
)
_GOOD_ENDS: Final = ("STOP", "", None)
_USAGE: Final = {
    "input_tokens": ("promptTokenCount", "total_input_tokens"),
    "output_tokens": ("candidatesTokenCount", "total_output_tokens"),
    "total_tokens": ("totalTokenCount", "total_tokens"),
    "cached_tokens": ("cachedContentTokenCount", "total_cached_tokens"),
    "reasoning_tokens": ("thoughtsTokenCount", "total_thought_tokens"),
}


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
    candidates = [candidate for candidate in _several(response.get("candidates")) if isinstance(candidate, dict)]
    if not candidates and (stated := error_in(response)) is not None:
        raise _stated_error(response, stated)
    feedback = _object(_of(response, "promptFeedback"))
    blocked = _of(feedback, "blockReason")
    if blocked and not candidates:
        raise _blocked_prompt(str(blocked), feedback)
    if not candidates:
        raise _failed(f"Gemini answered without candidates, and without a word why: {_shown(response)}")
    parts = [part for candidate in candidates for part in _parts(candidate)]
    found = tuple(_inline_images(part for part in parts if part.get("thought") is not True))
    refused = any(refusal_reason(str(_of(candidate, "finishReason")), []) for candidate in candidates)
    drafts = () if found or refused else tuple(_inline_images(parts))
    if not found and not drafts:
        raise _no_image(candidates[0])
    ends = [str(end) for candidate in candidates if (end := _of(candidate, "finishReason")) not in _GOOD_ENDS]
    return Answer(
        id=_text(_of(response, "responseId")),
        images=found or drafts,
        text=_words(parts),
        model=_text(_of(response, "modelVersion")) or None,
        usage=usage(_of(response, "usageMetadata")),
        raw=scrubbed(response),
        warnings=_odd(ends, drafts=bool(drafts)),
    )


def _one(response: Any) -> Any:
    """The response in an answer: gateways wrap it, or give the list of pieces that a stream would have brought."""
    if isinstance(response, list) and response and all(isinstance(piece, dict) for piece in response):
        merged: dict[str, Any] = {}
        for piece in response:
            merged |= {name: value for name, value in piece.items() if value is not None and name != "candidates"}
        candidates = [entry for piece in response for entry in _several(piece.get("candidates")) if entry]
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
    status = interaction.get("status")
    failure: ServiceError | None = None
    match phase_of(status):
        case "done":
            pass
        case "failed":
            failure = failed_interaction(interaction.get("errors") or interaction.get("error"))
        case "cancelled":
            failure = _failed("the interaction was cancelled at Gemini", retry=False, code="cancelled")
        case "expired":
            failure = _failed(f"the interaction ended at Gemini without an image ({status})", code=str(status))
        case "stopped":
            failure = _failed(
                f"Gemini stopped the interaction ({status}) before there was an image; the same request would stop "
                "again",
                retry=False,
                code=str(status),
            )
        case "unknown" if _finished_images(interaction):  # whatever its word is: they have been made
            pass
        case _:
            return None
    return _ended(interaction, failure)


def usage(said: Any) -> dict[str, Any]:
    """Tokens in the fleet's shape: None where the service said nothing, never a guessed 0."""
    counts = {
        name: next((found for found in (_of(_object(said), field) for field in fields) if _is_count(found)), None)
        for name, fields in _USAGE.items()
    }
    return {name: count for name, count in counts.items() if count is not None or not name.startswith(("cach", "reas"))}


def _ended(interaction: Mapping[str, Any], failure: ServiceError | None) -> Answer:
    """What an interaction that has ended holds: its images, however it has ended."""
    steps, parts = _steps(interaction), _output(interaction)
    found = _finished_images(interaction)
    words = _words([part for part in parts if part.get("type") == "text"])
    drafts = () if found else tuple(_images(parts))
    if not (found or drafts or words):
        drafts = tuple(_images(_thoughts(steps)))
    if not found and failure is not None:
        raise failure
    if not found and not drafts:
        raise (
            _in_words(words) if words else _failed("Gemini completed the interaction with neither an image nor words")
        )
    return Answer(
        id=_text(interaction.get("id")),
        images=found or drafts,
        text=words,
        model=_text(interaction.get("model")) or None,
        usage=usage(interaction.get("usage")),
        raw=scrubbed(interaction),
        warnings=_odd([] if failure is None else [str(interaction.get("status"))], drafts=bool(drafts)),
    )


def _steps(interaction: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [step for step in _list(interaction.get("steps")) if isinstance(step, dict)]


def _output(interaction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of what the model gave out."""
    outputs = (_list(step.get("content")) for step in _steps(interaction) if step.get("type") == "model_output")
    return [part for content in outputs for part in content if isinstance(part, dict)]


def _finished_images(interaction: Mapping[str, Any]) -> tuple[Image, ...]:
    """Images that are no drafts. ``output_image`` is a copy of one, for those who read nothing else."""
    found = tuple(_images(part for part in _output(interaction) if part.get("thought") is not True))
    return found or tuple(_images([interaction.get("output_image")]))


def _odd(ends: list[str], *, drafts: bool) -> tuple[str, ...]:
    stopped = f"Gemini stopped ({excerpt(', '.join(ends), 100)}); the image that it had made is kept"
    return ((stopped,) if ends else ()) + (("the only image is one of Gemini's thoughts",) if drafts else ())


def _thoughts(steps: list[dict[str, Any]]) -> Iterator[Any]:
    for step in steps:
        if step.get("type") == "thought":
            yield from (*_list(step.get("summary")), *_list(step.get("content")))


def _images(parts: Iterable[Any]) -> Iterator[Image]:
    """The images among the parts of an interaction."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type", "image") != "image":
            continue
        data, kind = _text(part.get("data")), media_type_of(part)
        if not data and (inside := image_in(part)) is not None:
            data, kind = inside.source, inside.media_type
        if data and _may_be_image(kind):
            yield Image(data=data, media_type=kind)


def _parts(candidate: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A candidate's parts; thoughts are among them, and have images too."""
    for content in _several(candidate.get("content")):
        held = content.get("parts") if isinstance(content, dict) and "parts" in content else content
        yield from (part for part in _several(held) if isinstance(part, dict))


def _inline_images(parts: Iterable[dict[str, Any]]) -> Iterator[Image]:
    """The images among parts of ``generateContent``: data, or the address of a file."""
    for part in parts:
        for name in ("inlineData", "fileData"):
            about = _object(_of(part, name))
            data = _text(about.get("data")) or _text(_of(about, "fileUri"))
            if data and _may_be_image(media_type_of(about)):
                yield Image(data=data, media_type=media_type_of(about))


def _may_be_image(media_type: str | None) -> bool:
    """Whether a type is that of an image, or one that nobody knows: the bytes decide later."""
    return (media_type or "image/*").split("/", 1)[0].lower() not in ("audio", "video", "text")


def _words(parts: list[dict[str, Any]]) -> str:
    spoken = [part for part in parts if part.get("thought") is not True]
    return "\n".join(part["text"] for part in spoken if _text(part.get("text"))).strip()


def _blocked_prompt(reason: str, feedback: Mapping[str, Any]) -> Refused:
    return Refused(
        f"Gemini blocked the prompt ({reason})",
        reason=refusal_reason(reason, _list(_of(feedback, "safetyRatings"))),
        code=reason,
    )


def _no_image(candidate: Mapping[str, Any]) -> ServiceError:
    finish = _of(candidate, "finishReason")
    words = _words(list(_parts(candidate)))
    said = _quote(" ".join(text for text in (_text(_of(candidate, "finishMessage")), words) if text))
    if finish in _GOOD_ENDS:
        return _in_words(words) if words else _failed("Gemini ended with neither an image nor words")
    name = excerpt(str(finish), 100)
    text = f"Gemini stopped ({name}) before there was an image" + (f": {said}" if said else "")
    reason = refusal_reason(name, _list(_of(candidate, "safetyRatings")))
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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _of(said: Mapping[str, Any], name: str) -> Any:
    """A member by its documented name, or by the one in snake_case that gateways write."""
    return said[name] if name in said else said.get(snake(name))


def _shown(value: Any) -> str:
    return _quote(msgspec.json.encode(scrubbed(value)).decode("utf-8", "replace"))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _several(value: Any) -> list[Any]:
    """The entries of a list; of one thing in place of a list, that."""
    return value if isinstance(value, list) else [value]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
