"""The Images API: its requests, its answers and its streams, read into the same ``Answer`` as a response's (OpenAI
reference 8, 9). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.services.openai.errors import stream_error
from emp_trio.services.openai.image_options import ImageOptions
from emp_trio.services.openai.responses import MEDIA_TYPES, Answer, Picture, text_or_none, usage


def generations_request(prompt: str, options: ImageOptions) -> dict[str, Any]:
    """The body of ``POST /images/generations``."""
    return {"model": options.model, "prompt": prompt, "n": options.n} | options.fields


def read_images_answer(answer: Any, *, image_model: str) -> Answer:
    """What an answer of the Images API holds.

    Args:
        answer: the JSON value, whatever it is.
        image_model: the model asked for, for the usage.

    Raises:
        ServiceError: there is no picture, or an entry without one. It may have been billed.
    """
    said = answer if isinstance(answer, dict) else {}
    entries = said.get("data")
    pictures = tuple(_picture(entry, said) for entry in entries) if isinstance(entries, list) else ()
    if not pictures:
        raise _no_picture("OpenAI's Images API answered without a picture")
    return _answer(pictures, said, image_model)


class ImagesStream(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream of the Images API has said so far.

    Attributes:
        partials: partial pictures so far; they are no results.
        partial: base64 of the last one, or None.
        pictures: the finished ones.
        last: the last ``completed`` event without its picture.
        error: why it ended, where it said so.
    """

    partials: int = 0
    partial: str | None = None
    pictures: tuple[Picture, ...] = ()
    last: Mapping[str, Any] = {}
    error: ServiceError | None = None

    def answer(self, *, image_model: str) -> Answer:
        """What the stream came to, at its end.

        Raises:
            ServiceError, Refused: it told of an error, or ended before a picture was completed.
        """
        if self.error is not None:
            raise self.error
        if not self.pictures:
            raise ServiceError(
                f"the stream ended before a picture was complete (after {self.partials} partial ones)",
                type="network_error",
                reason="connection_failed",
                maybe_started=True,
            )
        return _answer(self.pictures, self.last, image_model)


def fold_images_event(state: ImagesStream, event: Any) -> ImagesStream:
    """The state after one more event (reference 9); what is not known is ignored.

    Args:
        event: the JSON of the event. Its ``type`` counts, not the ``event:`` line.
    """
    kind = event.get("type") if isinstance(event, dict) else None
    match str(kind).rpartition(".")[2] if isinstance(kind, str) else None:
        case "partial_image":
            return msgspec.structs.replace(state, partials=state.partials + 1, partial=_base64(event))
        case "completed":
            try:
                picture = _picture(event, event)
            except ServiceError as error:
                return msgspec.structs.replace(state, error=error)
            last = {name: value for name, value in event.items() if name != "b64_json"}
            return msgspec.structs.replace(state, pictures=(*state.pictures, picture), last=last)
        case "error":
            return msgspec.structs.replace(state, error=stream_error(event))
        case _:
            return state


def _picture(entry: Any, said: Mapping[str, Any]) -> Picture:
    data = _base64(entry)
    if data is None:
        raise _no_picture("OpenAI's Images API answered with an entry that has no b64_json")
    return Picture(
        data=data,
        media_type=MEDIA_TYPES.get(str(said.get("output_format"))),
        revised_prompt=text_or_none(entry.get("revised_prompt")),
        size=text_or_none(said.get("size")),
        quality=text_or_none(said.get("quality")),
    )


def _answer(pictures: tuple[Picture, ...], said: Mapping[str, Any], image_model: str) -> Answer:
    return Answer(
        response_id="",
        text="",
        pictures=pictures,
        truncated=False,
        model=None,
        usage=usage({"tool_usage": {"image_gen": said.get("usage")}}, image_model),
        skipped=(),
        raw=said,
    )


def _base64(entry: Any) -> str | None:
    return text_or_none(entry.get("b64_json")) if isinstance(entry, dict) else None


def _no_picture(message: str) -> ServiceError:
    return ServiceError(message, type="response_error", reason="missing_expected_data", maybe_started=True)
