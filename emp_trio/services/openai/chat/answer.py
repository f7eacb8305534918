"""A chat completion, whole or in chunks, as an answer, or as the reason why there is none (OpenAI reference 10 to 12).
Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.answer_decoder import AnswerDecoder
from emp_trio.protocols.decoders import SseEvent
from emp_trio.protocols.http.response import HttpResponse
from emp_trio.protocols.parsing import parse_or_empty
from emp_trio.protocols.wire_json import join_halves
from emp_trio.secrets import one_line
from emp_trio.services.error_shapes import error_in, event_value, quoted, stated_error
from emp_trio.services.finish_reasons import end_of
from emp_trio.services.openai.chat.choice import Choice, kind_of
from emp_trio.services.openai.chat.messages import Completion
from emp_trio.services.openai.errors import answered_error, refusal, stream_error
from emp_trio.services.openai.responses.answer import usage

log = structlog.get_logger(__name__)

_QUOTED: Final = 500  # characters of a model's words in an error


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion holds.

    Attributes:
        id: OpenAI's id of the completion.
        text: words of the first choice that has something and was not declined.
        finish_reason: why it ended, as the service says it; None where it doesn't.
        truncated: it did not come to its own end: it was cut off at the limit of its length, or ended in a way that is
            no known good one.
        tool_calls: functions that the model wants called.
        choices: every choice, where several were asked for.
        usage: in the project's shape (OpenAI reference 11).
        logprobs: of the tokens, as the service sends them, where they were asked for.
        skipped: kinds of content that are not understood.
        note: what the service said where it broke off.
    """

    id: str
    model: str | None
    text: str
    finish_reason: str | None
    truncated: bool
    tool_calls: tuple[dict[str, Any], ...]
    choices: tuple[dict[str, Any], ...]
    usage: dict[str, Any]
    logprobs: Any = None
    skipped: tuple[str, ...] = ()
    note: str | None = None


class ChatFold:
    """A streamed completion while it comes: chunks are added, and at the end it is an answer.

    Attributes:
        finished: every choice that has begun has come to its end.
        in_hand: something has come that can be used.
        strange: what has come is nothing of a completion.
        ends_blank: every choice that has begun was given an empty reason for its end: some services know no better.
    """

    def __init__(self) -> None:
        self._id: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] | None = None
        self._choices: defaultdict[int, Choice] = defaultdict(Choice.begin)
        self._unknown: Any = None
        self._note: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the whole answer has come, but for its usage perhaps."""
        return bool(self._choices) and all(c.finish_reason or c.whole for c in self._choices.values())

    @property
    def strange(self) -> bool:
        """Whether there are no choices, but something else that can be quoted."""
        return self._unknown is not None and not self._choices

    @property
    def ends_blank(self) -> bool:
        """Whether each choice has at least a blank for a reason."""
        return bool(self._choices) and all(c.finish_reason is not None for c in self._choices.values())

    @property
    def in_hand(self) -> bool:
        """Whether there is something that must not be paid for again."""
        return any(choice.in_hand for choice in self._choices.values())

    def add(self, chunk: Any) -> str:
        """Take the next chunk; a whole completion is one too. What is nothing of the kind is ignored, or quoted at the
        end where nothing else comes.

        Returns:
            the words that it adds to the first choice.

        Raises:
            Refused, ServiceError: it tells of an error, beside what else is in it.
        """
        said = parse_or_empty(Completion, chunk)
        self._id, self._model = said.id or self._id, said.model or self._model
        self._usage = said.usage or self._usage
        words, piece = "", said.object == "chat.completion.chunk"
        for given in said.several():
            choice = self._choices[given.index or 0]
            text = choice.add(given, piece=piece)
            choice.whole = choice.whole or (given.message is not msgspec.UNSET and not piece)
            words += text if not given.index else ""
        error = error_in(chunk) or stated_error(chunk)
        if error is not None:
            begun = bool(self._choices)
            raise stream_error(error) if begun else answered_error(chunk) or stream_error(error)
        if not self._choices:
            self._unknown = self._unknown or _without_choices(chunk)
        return words

    def take(self, event: SseEvent) -> str | None:
        """Take the next event of a stream.

        Returns:
            the words that it adds to the first choice; None where the service says that nothing more comes, also with
            an error: what is in hand then is kept.

        Raises:
            Refused, ServiceError: as :meth:`add`, with nothing in hand; or it is not JSON.
        """
        if event.done:
            return None
        chunk = event_value(event, keep_halves=True)  # a character may be spread over two chunks
        try:
            return self.add(chunk)
        except Refused:
            raise
        except ServiceError as error:
            if not self.in_hand:
                raise
            log.warning("chat.broken_off", why=error.message)
            self._break_off(error)
            return None

    def _break_off(self, error: ServiceError) -> None:
        """What has come so far is all that comes, because the service said so with an error."""
        self._note = error.message
        for choice in self._choices.values():
            choice.finish_reason = choice.finish_reason or error.code or "error"

    def answer(self) -> ChatAnswer:
        """What has come, once the stream is at its end. Raises as :func:`read_completion`."""
        choices = [choice for _, choice in sorted(self._choices.items())]
        said = Completion(id=self._id, model=self._model, usage=self._usage)
        return _answer(said, choices, self._unknown, self._note)


def read_completion(completion: Any) -> ChatAnswer:
    """What a whole completion says.

    Raises:
        Refused: the model, or the content filter, declined every choice.
        ServiceError: it is an error, there is nothing in it, or nothing that is understood: it is quoted.
    """
    error = answered_error(completion)
    if error is not None:
        raise error
    whole = completion[0] if isinstance(completion, list) and len(completion) == 1 else completion
    said = parse_or_empty(Completion, whole)
    choices = []
    for given in said.several():
        choice = Choice.begin(whole=True)
        choice.add(given)
        choices.append(choice)
    note = None
    if (stated := stated_error(whole)) is not None:
        failed = stream_error(stated)
        if not any(choice.in_hand for choice in choices):
            raise failed
        note = failed.message
    return _answer(said, choices, _without_choices(whole), note)


def read_body(reply: HttpResponse) -> ChatAnswer:
    """What the answer to a call without ``stream`` says: a completion, or a stream of one that comes all the same.

    Raises:
        Refused, ServiceError: as :func:`read_completion`; or it is neither.
    """
    try:
        completion = reply.json()
    except ServiceError as error:
        events = _events(reply.body)
        if not events:
            raise error from error.__cause__
        fold = ChatFold()
        for event in events:
            try:
                if fold.take(event) is None:
                    break
            except ServiceError as broken:
                if not fold.finished or isinstance(broken, Refused):
                    raise
                break  # the whole answer has come
        return fold.answer()
    return read_completion(completion)


def _events(body: bytes) -> list[SseEvent]:
    """The events of a body that is a stream; none of any other."""
    decoder = AnswerDecoder("", len(body))
    try:
        return [*decoder.feed(body), *decoder.finish()]
    except ServiceError:
        return []


def _answer(said: Completion, choices: list[Choice], unknown: Any, note: str | None) -> ChatAnswer:
    if not choices:
        if unknown is not None:
            raise _nothing(f"has no choices: {quoted(unknown)}", retry=False)
        raise _nothing("has no choices", retry=True)
    willing = [choice for choice in choices if not choice.declined]
    if not willing:
        raise _declined(choices[0])
    best = next((choice for choice in willing if choice.in_hand), willing[0])
    if not best.in_hand:
        raise _empty(best)
    shown = best.shown()
    return ChatAnswer(
        id=said.id or "",
        model=said.model or None,
        text=shown["text"],
        finish_reason=best.finish_reason,
        truncated=best.truncated,
        tool_calls=tuple(shown.get("tool_calls", ())),
        choices=tuple(choice.shown() for choice in choices) if len(choices) > 1 else (),
        usage=_usage(said.usage or {}, said.model or None),
        logprobs=best.logprobs,
        skipped=tuple(sorted({kind_of(part) for choice in choices for part in choice.unknown})),
        note=note,
    )


def _empty(choice: Choice) -> ServiceError:
    if choice.error is not None:
        return stream_error({"error": choice.error})
    if choice.unknown:
        return _nothing(f"has content of a kind that is not understood: {quoted(choice.unknown)}", retry=False)
    if end_of(choice.finish_reason) == "limit":
        return _nothing("was cut off at its limit of tokens before there was a word; allow more", retry=False)
    thought = "".join(choice.reasoning)
    only = f", and has only reasoning: {quoted(join_halves(thought))}" if thought.strip() else ""
    return _nothing(f"is empty (finish_reason {choice.finish_reason}){only}", retry=True)


def _declined(choice: Choice) -> Refused:
    words = one_line("".join(choice.refusal), _QUOTED)
    if words:
        return refusal({}, f"the model refused: {words}")
    return Refused("OpenAI's content filter stopped the answer", reason="safety_filter", code="content_filter")


def _nothing(why: str, *, retry: bool) -> ServiceError:
    return ServiceError(
        f"OpenAI's answer {why}",
        type="response_error",
        reason="missing_expected_data",
        retry=retry,
        maybe_started=True,
    )


def _usage(said: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    names = {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "total_tokens": "total_tokens",
        "input_tokens_details": "prompt_tokens_details",
        "output_tokens_details": "completion_tokens_details",
    }
    return usage({"usage": {ours: said.get(theirs) for ours, theirs in names.items()}, "model": model})


def _without_choices(value: Any) -> Any:
    """What is no completion, to be quoted; None where it is one, or nothing."""
    return value if isinstance(value, dict) and value and "choices" not in value else None
