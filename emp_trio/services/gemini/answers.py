"""Answers of either interface as pictures, or as the reason why there are none (Gemini reference A4, A5, A7). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.http_errors import may_have_started
from emp_trio.services.gemini.errors import described_error, failed_interaction
from emp_trio.services.gemini.refusals import refusal_reason
from emp_trio.services.gemini.scrub import scrubbed

_QUOTED: Final = 500  # characters of Gemini's words in an error

_FAILED: Final = frozenset(("NO_IMAGE", "IMAGE_OTHER", "OTHER", "MALFORMED_RESPONSE"))
_USAGE: Final = {
    "input_tokens": ("promptTokenCount", "total_input_tokens"),
    "output_tokens": ("candidatesTokenCount", "total_output_tokens"),
    "total_tokens": ("totalTokenCount", "total_tokens"),
    "cached_tokens": ("cachedContentTokenCount", "total_cached_tokens"),
    "reasoning_tokens": ("thoughtsTokenCount", "total_thought_tokens"),
}


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture in an answer: base64 text, and what the service says it is."""

    data: str
    media_type: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished generation holds.

    Attributes:
        id: of the interaction or the response, or "".
        pictures: in their order, without drafts; at least one. The last is the result.
        text: the words beside them.
        model: the model that answered, or None.
        usage: tokens; None where the service says nothing.
        raw: the whole answer without file bytes.
    """

    id: str
    pictures: tuple[Picture, ...]
    text: str
    model: str | None
    usage: dict[str, Any]
    raw: Any


def read_generated(response: Any) -> Answer:
    """What a response of ``generateContent`` says.

    Raises:
        Refused: the prompt or the picture was blocked, or there are words instead of a picture.
        ServiceError: it failed; ``maybe_started`` is set, as the call has run.
    """
    if not isinstance(response, dict):
        raise _failed(f"Gemini sent {type(response).__name__} where a response was expected", "invalid_response_format")
    if isinstance(response.get("error"), dict):
        error = described_error(response["error"])
        error.maybe_started = may_have_started(error.status or 500)
        raise error
    candidates = [candidate for candidate in _list(response.get("candidates")) if isinstance(candidate, dict)]
    blocked = _object(response.get("promptFeedback")).get("blockReason")
    if blocked and not candidates:
        raise _blocked_prompt(str(blocked), _object(response.get("promptFeedback")))
    if not candidates:
        raise _failed("Gemini answered without candidates, and without a word why")
    good = [candidate for candidate in candidates if candidate.get("finishReason") in ("STOP", None)]
    parts = [part for candidate in good for part in _parts(candidate)]
    pictures = tuple(_inline_pictures(parts))
    if not pictures:
        raise _no_picture(candidates[0])
    return Answer(
        id=_text(response.get("responseId")),
        pictures=pictures,
        text=_words(parts),
        model=_text(response.get("modelVersion")) or None,
        usage=usage(response.get("usageMetadata")),
        raw=scrubbed(response),
    )


def read_interaction(interaction: Mapping[str, Any]) -> Answer | None:
    """What an interaction says.

    Returns:
        the answer, or None while there is none yet.

    Raises:
        Refused: Gemini declined, or answered in words.
        ServiceError: it failed, was cancelled, or ended without a picture; ``maybe_started`` is set.
    """
    match interaction.get("status"):
        case "completed":
            return _completed(interaction)
        case "failed":
            raise failed_interaction(interaction.get("errors"))
        case "cancelled":
            raise _failed("the interaction was cancelled at Gemini", retry=False, code="cancelled")
        case "incomplete" | "budget_exceeded" | "requires_action" | "requires_continuation" as status:
            raise _failed(
                f"Gemini stopped the interaction ({status}) before there was a picture; the same request would stop "
                "again",
                retry=False,
                code=status,
            )
        case _:
            return None


def usage(said: Any) -> dict[str, Any]:
    """Tokens in the fleet's shape: None where the service said nothing, never a guessed 0."""
    counts = {
        name: next((found for found in map(_object(said).get, fields) if _is_count(found)), None)
        for name, fields in _USAGE.items()
    }
    return {name: count for name, count in counts.items() if count is not None or not name.startswith(("cach", "reas"))}


def _completed(interaction: Mapping[str, Any]) -> Answer:
    parts = [
        part
        for step in _list(interaction.get("steps"))
        if isinstance(step, dict) and step.get("type") == "model_output"
        for part in _list(step.get("content"))
        if isinstance(part, dict) and part.get("thought") is not True
    ]
    pictures = tuple(
        Picture(data=part["data"], media_type=_text(part.get("mime_type")) or None)
        for part in parts
        if part.get("type") == "image" and _text(part.get("data"))
    )
    words = _words([part for part in parts if part.get("type") == "text"])
    if not pictures and words:
        raise _in_words(words)
    if not pictures:
        raise _failed("Gemini completed the interaction with neither a picture nor words")
    return Answer(
        id=_text(interaction.get("id")),
        pictures=pictures,
        text=words,
        model=_text(interaction.get("model")) or None,
        usage=usage(interaction.get("usage")),
        raw=scrubbed(interaction),
    )


def _parts(candidate: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A candidate's parts without drafts, which have pictures too."""
    for part in _list(_object(candidate.get("content")).get("parts")):
        if isinstance(part, dict) and part.get("thought") is not True:
            yield part


def _inline_pictures(parts: list[dict[str, Any]]) -> Iterator[Picture]:
    for part in parts:
        inline = _object(part.get("inlineData"))
        kind = _text(inline.get("mimeType"))
        if _text(inline.get("data")) and (not kind or kind.startswith("image/")):
            yield Picture(data=inline["data"], media_type=kind or None)


def _words(parts: list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in parts if _text(part.get("text"))).strip()


def _blocked_prompt(reason: str, feedback: Mapping[str, Any]) -> Refused:
    return Refused(
        f"Gemini blocked the prompt ({reason})",
        reason=refusal_reason(reason, _list(feedback.get("safetyRatings"))),
        code=reason,
    )


def _no_picture(candidate: Mapping[str, Any]) -> ServiceError:
    finish = candidate.get("finishReason")
    words = _words(list(_parts(candidate)))
    said = _quote(" ".join(text for text in (_text(candidate.get("finishMessage")), words) if text))
    if finish in ("STOP", None):
        return _in_words(words) if words else _failed("Gemini ended with neither a picture nor words")
    name = str(finish)[:100]
    text = f"Gemini stopped ({name}) before there was a picture" + (f": {said}" if said else "")
    reason = refusal_reason(name, _list(candidate.get("safetyRatings")))
    if reason is not None:
        return Refused(text, reason=reason, code=name)
    if name == "MAX_TOKENS":
        return _failed(f"{text}; the same request would stop again: raise maxOutputTokens", retry=False, code=name)
    return _failed(text, retry=name in _FAILED, code=name)


def _in_words(words: str) -> Refused:
    return Refused(f"Gemini answered in words instead of making a picture: {_quote(words)}", code="no_image")


def _failed(
    text: str, reason: str = "missing_expected_data", *, retry: bool = True, code: str | None = None
) -> ServiceError:
    """A generation that has run and given nothing."""
    return ServiceError(text, type="response_error", reason=reason, retry=retry, code=code, maybe_started=True)


def _quote(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
