"""A chat completion, whole or in chunks, as an answer, or as the reason why there is none (OpenAI reference 10 to 12).
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.services.openai.errors import refusal, stream_error
from emp_trio.services.openai.responses import usage

_QUOTED: Final = 500  # characters of a model's words in an error


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion holds.

    Attributes:
        id: OpenAI's id of the completion.
        text: words of the first choice that was not declined.
        finish_reason: why it ended, as the service says it; None where it doesn't.
        truncated: it was cut off at the limit of its length.
        tool_calls: functions that the model wants called.
        choices: every choice, where several were asked for.
        usage: in the project's shape (reference 11).
    """

    id: str
    model: str | None
    text: str
    finish_reason: str | None
    truncated: bool
    tool_calls: tuple[dict[str, Any], ...]
    choices: tuple[dict[str, Any], ...]
    usage: dict[str, Any]


class _Choice(msgspec.Struct, kw_only=True):
    """One choice; its words in the pieces in which they came."""

    text: list[str] = []
    refusal: list[str] = []
    tool_calls: dict[int, dict[str, Any]] = {}
    finish_reason: str | None = None


class ChatFold:
    """A streamed completion while it comes: chunks are added, and at the end it is an answer.

    Attributes:
        finished: every choice that has begun has come to its end.
    """

    def __init__(self) -> None:
        self._envelope: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    @property
    def finished(self) -> bool:
        """Whether the whole answer has come, but for its usage perhaps."""
        return bool(self._choices) and all(choice.finish_reason is not None for choice in self._choices.values())

    def add(self, chunk: Any) -> str:
        """Take the next chunk; what it has in other than the documented places is ignored.

        Returns:
            the words that it adds to the first choice.

        Raises:
            Refused, ServiceError: it is an error.
        """
        said = _object(chunk)
        if said.get("error"):
            raise stream_error(said)
        self._envelope |= {name: said[name] for name in ("id", "model", "usage") if said.get(name)}
        words = ""
        for given in _objects(said.get("choices")):
            index = given["index"] if isinstance(given.get("index"), int) else 0
            choice = self._choices.setdefault(index, _Choice())
            delta = _object(given.get("delta"))
            if text := _text(delta.get("content")):
                choice.text.append(text)
                words += text if index == 0 else ""
            if text := _text(delta.get("refusal")):
                choice.refusal.append(text)
            for call in _objects(delta.get("tool_calls")):
                _fold_call(choice.tool_calls, call)
            choice.finish_reason = _text(given.get("finish_reason")) or choice.finish_reason
        return words

    def answer(self) -> ChatAnswer:
        """What has come, once the stream is ``finished``. Raises as :func:`read_completion`."""
        return _answer(self._envelope, [choice for _, choice in sorted(self._choices.items())])


def read_completion(completion: Any) -> ChatAnswer:
    """What a whole completion says.

    Raises:
        Refused: the model, or the content filter, declined every choice.
        ServiceError: there is nothing in it.
    """
    said = _object(completion)
    choices = []
    for given in _objects(said.get("choices")):
        message = _object(given.get("message"))
        calls = _objects(message.get("tool_calls"))
        choices.append(
            _Choice(
                text=[_text(message.get("content"))],
                refusal=[_text(message.get("refusal"))],
                tool_calls=dict(enumerate(calls)),
                finish_reason=_text(given.get("finish_reason")) or None,
            )
        )
    return _answer(said, choices)


def _answer(envelope: Mapping[str, Any], choices: list[_Choice]) -> ChatAnswer:
    if not choices:
        raise _nothing("has no choices", retry=True)
    best = next((c for c in choices if not "".join(c.refusal) and c.finish_reason != "content_filter"), None)
    if best is None:
        raise _declined(choices[0])
    text = "".join(best.text)
    if not text.strip() and not best.tool_calls:
        if best.finish_reason == "length":
            raise _nothing("was cut off at its limit of tokens before there was a word; allow more", retry=False)
        raise _nothing(f"is empty (finish_reason {best.finish_reason})", retry=True)
    model = _text(envelope.get("model")) or None
    return ChatAnswer(
        id=_text(envelope.get("id")),
        model=model,
        text=text,
        finish_reason=best.finish_reason,
        truncated=best.finish_reason == "length",
        tool_calls=_calls(best),
        choices=tuple(_shown(choice) for choice in choices) if len(choices) > 1 else (),
        usage=_usage(_object(envelope.get("usage")), model),
    )


def _declined(choice: _Choice) -> Refused:
    words = " ".join("".join(choice.refusal).split())
    if words:
        return refusal({}, f"the model refused: {words[:_QUOTED]}")
    return Refused("OpenAI's content filter stopped the answer", reason="safety_filter", code="content_filter")


def _nothing(why: str, *, retry: bool) -> ServiceError:
    return ServiceError(
        f"OpenAI's answer {why}",
        type="response_error",
        reason="missing_expected_data",
        retry=retry,
        maybe_started=True,
    )


def _shown(choice: _Choice) -> dict[str, Any]:
    shown: dict[str, Any] = {"text": "".join(choice.text), "finish_reason": choice.finish_reason}
    if refused := "".join(choice.refusal):
        shown["refusal"] = refused
    if choice.tool_calls:
        shown["tool_calls"] = list(_calls(choice))
    return shown


def _calls(choice: _Choice) -> tuple[dict[str, Any], ...]:
    return tuple(call for _, call in sorted(choice.tool_calls.items()))


def _fold_call(calls: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    """Add a piece of a tool call: its arguments come in many, everything else in the first."""
    index = piece["index"] if isinstance(piece.get("index"), int) else len(calls)
    call = calls.setdefault(index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = _text(piece.get("id")) or call["id"]
    call["type"] = _text(piece.get("type")) or call["type"]
    function = _object(piece.get("function"))
    call["function"]["name"] = _text(function.get("name")) or call["function"]["name"]
    call["function"]["arguments"] += _text(function.get("arguments"))


def _usage(said: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    names = {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "total_tokens": "total_tokens",
        "input_tokens_details": "prompt_tokens_details",
        "output_tokens_details": "completion_tokens_details",
    }
    return usage({"usage": {ours: said.get(theirs) for ours, theirs in names.items()}, "model": model})


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
