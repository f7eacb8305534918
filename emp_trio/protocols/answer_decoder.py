"""A streamed answer told by its bytes. Pure: bytes in, events out.

Some services label event streams as JSON or as text, and some answer in one piece where a stream was asked for (real
servers, section 2).
"""

from __future__ import annotations

import json
from typing import Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.decoders import BLANK, MAX_EVENT_BYTES, SSE_FIELDS, SseDecoder, SseEvent, too_large
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.wire_json import decode_json, excerpt, utf8_text

_LONGEST_FIELD: Final = 8
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # JSON in it, or in UTF-32, is read as a whole


class AnswerDecoder:
    """The events of a streamed answer, told by its first bytes and not by its label: server-sent events; else JSON, of
    which each value (each line of it, each item of a list) is the data of an event.

    Args:
        media_type: its label; what is nothing of the kind is called by it.
        max_event_bytes: larger events are an error.
    """

    def __init__(self, media_type: str, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._media_type = media_type
        self._limit = max_event_bytes
        self._sse: SseDecoder | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._kind = ""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes, and return the events they complete. Raises ServiceError where an event is too large, or
        the answer is a page."""
        if self._sse is not None:
            return self._sse.feed(chunk)
        self._parts.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit:
            raise too_large("an event", self._limit)
        if not self._kind:
            return self._decide(last=False)
        return []

    @property
    def pending(self) -> int:
        """Bytes that no event was made of yet."""
        return self._size if self._sse is None else self._sse.pending

    def finish(self) -> list[SseEvent]:
        """The answer has ended: what was not given out yet. Raises ServiceError where it is not whole, or not JSON."""
        events = self._decide(last=True) if not self._kind else []
        if self._sse is not None:
            return events + self._sse.finish()
        whole = b"".join(self._parts)
        if not whole:
            return events
        try:
            value = decode_json(whole)
        except ServiceError:
            lines = [line for line in whole.splitlines() if line.strip(BLANK)]
            if len(lines) < 2:
                raise
            for line in lines:
                decode_json(line)
            return [SseEvent(data=utf8_text(line)) for line in lines]
        if isinstance(value, list):
            return [SseEvent(data=msgspec.json.encode(item).decode()) for item in value]
        return [SseEvent(data=json.dumps(value) if b"\0" in whole[:4] else utf8_text(whole))]

    def _decide(self, *, last: bool) -> list[SseEvent]:
        """Look what the answer is, as soon as enough of it has come."""
        start = b"".join(self._parts).lstrip(BLANK)
        self._parts, self._size = [start], len(start)  # blanks may come for hours
        if start.startswith((b"{", b"[", *_UTF_16)) or b"\0" in start[:4]:
            self._kind = "json"
        elif start.startswith(SSE_FIELDS) or (start and not start.startswith(b"<") and self._labelled):
            self._kind = "sse"
            self._sse, self._parts = SseDecoder(self._limit), []
            return self._sse.feed(start)
        elif start and (last or len(start) > _LONGEST_FIELD):
            raise bad_answer(
                f"an answer of type {self._media_type or 'unknown'!r} instead of an event stream: {excerpt(start)}",
                reason="unexpected_content_type",
            )
        return []

    @property
    def _labelled(self) -> bool:
        return self._media_type.lower().startswith("text/event-stream")
