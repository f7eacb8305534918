"""Script of a generation of the fake OpenAI, for tests and ``emp-trio simulate openai``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from emp_trio.testing.openai.behavior import Behavior

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class StreamScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a generation goes where it is streamed.

    Attributes:
        partial_images: previews that arrive, where fewer than were asked for do.
        noise: comment lines, keepalives and an unknown event among the events.
        done_marker: ``[DONE]`` ends a Responses stream, as some compatible servers do it.
        cut_after: the stream ends after so many events. A stream that is resumed has as many more.
        stall_after: nothing comes after so many events, until ``finish_all``.
        error: an error inside the stream (``code``, ``message``, ``param``), where it is cut, else in place of its last
            event.
        error_nested: the error's members in ``error``, the other form in which it has been seen.
    """

    partial_images: Count | None = None
    noise: bool = False
    done_marker: bool = False
    cut_after: Count | None = None
    stall_after: Count | None = None
    error: dict[str, Any] | None = None
    error_nested: bool = False


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of a function of the caller's; ``arguments`` is JSON."""

    name: str
    arguments: str = "{}"


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a generation goes.

    Attributes:
        queued: seconds in status ``queued`` (Responses only).
        seconds: seconds in status ``in_progress`` after that; the events of a stream are spread over them.
        status: how it ends.
        error: ``error`` of a failed response (``code`` and ``message``); of the other APIs, a 500.
        incomplete_reason: ``incomplete_details.reason`` of an incomplete one: ``max_output_tokens`` or
            ``content_filter``.
        text: words of the answer; by default there are some where there is no image.
        refusal: a ``refusal`` part in place of text.
        tool_calls: functions that a chat completion calls.
        finish_reason: why a chat completion ends, in place of the documented word.
        behavior: the server whose chat completions to imitate (:data:`~emp_trio.testing.openai.behavior.Behavior`).
        images: images made where the request has the image tool. 0 makes none of the Images API either, which else
            makes as many as it is asked for.
        image_bytes: exact size of an image.
        image_error: ``error`` of the image's item, which then has no image; of the Images API, a 400.
        extra: further items of ``output``, before the rest.
        stream: what else happens to a stream.
    """

    queued: Seconds = 0.0
    seconds: Seconds = 0.05
    status: Literal["completed", "failed", "incomplete", "cancelled"] = "completed"
    error: dict[str, Any] | None = None
    incomplete_reason: str = "max_output_tokens"
    text: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] = []
    finish_reason: str | None = None
    behavior: tuple[Behavior, ...] = ()
    images: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    image_bytes: Annotated[int, msgspec.Meta(ge=10_000)] | None = None
    image_error: dict[str, Any] | None = None
    extra: list[dict[str, Any]] = []
    stream: StreamScript = StreamScript()
