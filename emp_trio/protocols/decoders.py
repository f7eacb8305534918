"""Incremental decoders for event streams (SSE) and for JSON lines (NDJSON). Pure: bytes in, events out.

However the bytes are split, the events are the same, and no byte is looked at twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.http_errors import bad_answer
from emp_trio.protocols.wire_json import decode_json, utf8_text

MAX_EVENT_BYTES: Final = 64 * 2**20

_SSE_LINE_END: Final = re.compile(rb"\r\n?|\n")
_LF: Final = re.compile(rb"\n")
_BOM: Final = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream: its type, its data lines joined by line feeds, and the last id the stream has given."""

    event: str = "message"
    data: str = ""
    id: str = ""

    def json(self) -> Any:
        """The data as a JSON value. Raises ServiceError response_error."""
        return decode_json(self.data)


class SseDecoder:
    """Server-sent events, as the WHATWG HTML standard (9.2.6) reads them. ``retry`` fields are ignored.

    Args:
        max_event_bytes: larger events are an error.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._lines = _Lines(_SSE_LINE_END)
        self._first = True
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = ""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes of the stream, and return the events they complete.

        Raises:
            ServiceError: an event is larger than the limit.
        """
        events = [event for line in self._lines.feed(chunk) if (event := self._take(line)) is not None]
        self._check_size(self._lines.pending)
        return events

    def finish(self) -> list[SseEvent]:
        """The stream has ended: nothing more comes. Raises ServiceError where it ended inside an event."""
        rest = self._lines.rest()
        if self._data or self._event or (rest and not rest.startswith(b":")):
            raise ended_early("in the middle of an event")
        return []

    def _take(self, line: bytes) -> SseEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
                self._size += len(value) + 1
                self._check_size(0)
            case b"event":
                self._event = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> SseEvent | None:
        event = None
        if self._data:
            data = utf8_text(b"\n".join(self._data))
            event = SseEvent(event=self._event or "message", data=data, id=self._id)
        self._data, self._size, self._event = [], 0, ""
        return event

    def _check_size(self, pending: int) -> None:
        if self._size + pending > self._limit:
            raise _too_large("an event", self._limit)


class NdjsonDecoder:
    """One JSON value per line; blank lines are skipped.

    Args:
        max_event_bytes: longer lines are an error.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._lines = _Lines(_LF)

    def feed(self, chunk: bytes) -> list[Any]:
        """Take the next bytes of the stream, and return the values of the lines they complete.

        Raises:
            ServiceError: a line is not JSON, or longer than the limit.
        """
        values = []
        for line in self._lines.feed(chunk):
            self._check_size(len(line))
            if line.strip():
                values.append(decode_json(line))
        self._check_size(self._lines.pending)
        return values

    def finish(self) -> list[Any]:
        """The stream has ended: the value of a last line without its line feed, if there is one.

        Raises:
            ServiceError: it ended inside a line.
        """
        rest = self._lines.rest()
        try:
            return [decode_json(rest)] if rest.strip() else []
        except ServiceError:
            raise ended_early("in the middle of a line") from None

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise _too_large("a line", self._limit)


class _Lines:
    """Bytes as lines; what follows the last line end waits for more."""

    def __init__(self, ends: re.Pattern[bytes]) -> None:
        self._ends = ends
        self._parts: list[bytes] = []
        self._after_cr = False
        self.pending = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        start = 0
        if self._after_cr and self._ends is _SSE_LINE_END and chunk.startswith(b"\n"):
            start = 1  # second half of a CRLF whose first half has ended the line
        self._after_cr = chunk.endswith(b"\r")
        for end in self._ends.finditer(chunk, start):
            line = b"".join([*self._parts, chunk[start : end.start()]])
            self._parts, self.pending = [], 0
            start = end.end()
            yield line
        if start < len(chunk):
            self._parts.append(chunk[start:])
            self.pending += len(chunk) - start

    def rest(self) -> bytes:
        return b"".join(self._parts)


def ended_early(where: str) -> ServiceError:
    """The error for a stream that stopped before its end."""
    return ServiceError(
        f"the stream ended {where}", type="network_error", reason="connection_failed", maybe_started=True
    )


def _too_large(what: str, limit: int) -> ServiceError:
    return bad_answer(
        f"{what} of the stream is larger than {limit} bytes", reason="invalid_response_format", retry=False
    )
