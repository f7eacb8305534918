"""Events of a Responses stream, folded into the same response object as polling gives (OpenAI reference 5). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from emp_trio.errors import Refused, ServiceError
from emp_trio.protocols.parsing import Lenient, parse, parse_or_empty
from emp_trio.protocols.wire_json import join_halves
from emp_trio.services.error_shapes import error_in
from emp_trio.services.openai.errors import stream_error
from emp_trio.services.openai.responses.answer import Answer, read_response
from emp_trio.services.work_states import phase_of

_UNDER_WAY: Final = frozenset(("queued", "in_progress"))
_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))


class ResponseStream(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has said so far.

    Attributes:
        sequence: the highest ``sequence_number``, -1 before the first: where a lost stream is resumed.
        response_id: of the response, empty until it is known.
        status: the last one it told.
        characters: of text so far.
        words: the text so far, as pairs of what came before and the last piece of it.
        partials: partial images so far; they are never results.
        partial: base64 of the last one, or None.
        items: finished items of the output, by their place in it.
        response: the response object of the event that ended the stream, or None.
        error: the error that ended the stream, or None.
    """

    sequence: int = -1
    response_id: str = ""
    status: str = ""
    characters: int = 0
    words: tuple[Any, str] | None = None
    partials: int = 0
    partial: str | None = None
    items: Mapping[int, Any] = {}
    response: Mapping[str, Any] | None = None
    error: ServiceError | None = None

    @property
    def ended(self) -> bool:
        """Whether the stream has come to the end that it was meant to have."""
        return self.response is not None or self.error is not None

    def answer(self, *, image_wanted: bool, image_model: str | None) -> Answer | None:
        """The answer, read by :func:`~emp_trio.services.openai.responses.answer.read_response`; None before the end.

        Raises:
            Refused, ServiceError: the service said so, in an event or in the response.
        """
        if self.error is not None:
            try:
                found = self._in_hand(self.error.code or self.error.reason, image_wanted, image_model)
            except Refused:
                found = None
            if found is None:
                raise self.error
            return found
        if self.response is None:
            return None
        return read_response(self.response, image_wanted=image_wanted, image_model=image_model)

    def in_hand(self, *, image_wanted: bool, image_model: str | None) -> Answer | None:
        """What a stream that was lost before its end has brought in finished items; None where that is not what was
        asked for.

        Raises:
            Refused: they are a refusal.
        """
        return self._in_hand("connection_lost", image_wanted, image_model)

    def broken_off(self, *, image_wanted: bool, image_model: str | None) -> Answer | None:
        """What a stream has brought that the service has ended with an error, or without a word; also words of which
        no item was finished. None where that is not what was asked for.

        Raises:
            Refused: it is a refusal.
        """
        why = "unknown" if self.error is None else self.error.code or self.error.reason
        return self._in_hand(why, image_wanted, image_model, words=True)

    def _in_hand(self, why: str, image_wanted: bool, image_model: str | None, *, words: bool = False) -> Answer | None:
        done = [self.items[place] for place in sorted(self.items)]
        if words and not done:
            done = _only_words(self)
        response = {
            "id": self.response_id,
            "status": "incomplete",
            "incomplete_details": {"reason": why},
            "output": done,
        }
        try:
            return read_response(response, image_wanted=image_wanted, image_model=image_model)
        except Refused:
            raise
        except ServiceError:  # nothing that could be used: what ended the stream says more
            return None


class _Event(msgspec.Struct, frozen=True):
    """An event of a stream; a member of another type than the documented one counts as missing."""

    type: str
    sequence_number: Lenient[int | None] = None
    response: Lenient[dict[str, Any] | None] = None
    delta: Lenient[str | None] = None
    text: Lenient[str | None] = None
    partial_image_b64: Lenient[str | None] = None
    item: Lenient[dict[str, Any] | None] = None
    output_index: Lenient[int | None] = None


class _Told(msgspec.Struct, frozen=True):
    """What an event's response says of itself."""

    id: Lenient[str] = ""
    status: Lenient[str | None] = None


class _Whole(msgspec.Struct, frozen=True):
    """A response in place of a stream, as it is or wrapped by a gateway; known by its name, or by its results."""

    object: Any = msgspec.UNSET
    response: Lenient[dict[str, Any] | None] = None
    status: Any = None
    output: Lenient[list[Any] | None] = None
    data: Lenient[list[Any] | None] = None


def fold_event(state: ResponseStream, event: Any) -> ResponseStream:
    """The state after one more event.

    An event that was seen before (a resumed stream may repeat some) changes nothing, and neither does one of an unknown
    type; an end is an end whatever its number.

    Args:
        event: its JSON; its ``type`` counts, not the ``event:`` line.
    """
    try:
        said = parse(_Event, event, "an event")
    except ServiceError:
        return _without_type(state, event)
    kind = said.type
    if kind in _ENDS or _tells_an_end(said):
        return _ended(state, said.response, kind)
    if kind in ("error", "response.error"):
        return msgspec.structs.replace(state, error=stream_error(event))
    if said.sequence_number is not None:
        if said.sequence_number <= state.sequence:
            return state
        state = msgspec.structs.replace(state, sequence=said.sequence_number)
    match kind:
        case "response.created" | "response.queued" | "response.in_progress":
            return _told(state, said.response)
        case "response.output_text.delta" | "response.refusal.delta" if said.delta is not None:
            words = (state.words, said.delta) if kind == "response.output_text.delta" else state.words
            return msgspec.structs.replace(state, characters=state.characters + len(said.delta), words=words)
        case "response.output_text.done" if said.text is not None and state.words is None:
            return msgspec.structs.replace(state, characters=len(said.text), words=(None, said.text))
        case "response.image_generation_call.partial_image" if said.partial_image_b64 is not None:
            return msgspec.structs.replace(state, partials=state.partials + 1, partial=said.partial_image_b64)
        case "response.output_item.done" if said.item is not None:
            place = len(state.items) if said.output_index is None else said.output_index
            return msgspec.structs.replace(state, items={**state.items, place: join_halves(said.item)})
        case _:
            return state


def _tells_an_end(event: _Event) -> bool:
    """Whether an event of another name, as of a gateway, has a response that has come to its end."""
    said = parse_or_empty(_Told, event.response or {})
    return phase_of(said.status) not in ("running", "unknown")


def _without_type(state: ResponseStream, event: Any) -> ResponseStream:
    """The state after something that is no event: an error, or the whole response, in place of a stream."""
    error = error_in(event)
    if error is not None:
        return msgspec.structs.replace(state, error=stream_error(error))
    said = parse_or_empty(_Whole, event)
    if said.object is msgspec.UNSET and said.response is not None:
        event = said.response
        said = parse_or_empty(_Whole, event)
    if said.object != "response" and said.output is None and said.data is None:
        return state
    if str(said.status) in _UNDER_WAY:
        return _told(state, event)
    return _ended(state, event, str(said.status or "completed"))


def _told(state: ResponseStream, response: Any) -> ResponseStream:
    said = parse_or_empty(_Told, response)
    return msgspec.structs.replace(
        state, response_id=state.response_id or said.id, status=state.status if said.status is None else said.status
    )


def _ended(state: ResponseStream, said: Mapping[str, Any] | None, kind: str) -> ResponseStream:
    """The response of the last event; what it leaves out of its output is taken from the items as they were done."""
    state = _told(state, said)
    response = dict(said or {})
    told = response.get("output")
    told = told if isinstance(told, list) else [told] if told else []
    done = [state.items[place] for place in sorted(state.items)]
    if (not told and not response.get("data")) or (_has_image(done) and not _has_image(told)):
        response["output"] = done or _only_words(state)
    response = {"id": state.response_id, "status": kind.removeprefix("response.")} | response
    return msgspec.structs.replace(state, response=join_halves(response))


def _only_words(state: ResponseStream) -> list[Any]:
    """A message of the words that have come, for services that send no more than those; empty where none have."""
    pieces: list[str] = []
    words = state.words
    while words is not None:
        words, piece = words
        pieces.append(piece)
    text = join_halves("".join(reversed(pieces)))
    return [{"type": "message", "content": [{"type": "output_text", "text": text}]}] if text else []


def _has_image(items: list[Any]) -> bool:
    return any(
        isinstance(item, dict) and item.get("type") == "image_generation_call" and item.get("result") for item in items
    )
