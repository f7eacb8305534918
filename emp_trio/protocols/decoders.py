"""Incremental decoders for event streams (SSE) and for JSON lines (NDJSON). Pure: bytes in, events out.

However the bytes are split, the events are the same, and no byte is looked at twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.wire_json import decode_json, utf8_text

MAX_EVENT_BYTES: Final = 64 * 2**20

_SSE_LINE_END: Final = re.compile(rb"\r\n?|\n")
_LF: Final = re.compile(rb"\n")
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_DONE: Final = 256
BLANK: Final = b" \t\r\n\xef\xbb\xbf"
"""Bytes that say nothing: blanks, and the three of a byte order mark."""
SSE_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a line of an event stream begins."""


class SseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream: its type, its data lines joined by line feeds, and the last id the stream has given."""

    event: str = "message"
    data: str = ""
    id: str = ""

    @property
    def done(self) -> bool:
        """Whether it is the ``[DONE]`` after which nothing more comes."""
        return is_done(self.data)

    def json(self, *, keep_halves: bool = False) -> Any:
        """The data as a JSON value.

        Args:
            keep_halves: as of :func:`~emp_trio.protocols.wire_json.decode_json`: texts of this event go on in the next.

        Raises:
            ServiceError: response_error; it is not JSON.
        """
        return decode_json(self.data, keep_halves=keep_halves)


class SseDecoder:
    """Server-sent events, as the WHATWG HTML standard (9.2.6) reads them, but for what services get wrong:

    data of nothing but blanks is no event; objects of JSON on data lines of their own that no blank line parts are
    events of their own; JSON that is whole when the stream ends is an event without the blank line after it.
    ``retry`` fields are ignored.

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
        events = [event for line in self._lines.feed(chunk) for event in self._take(line)]
        self._check_size(self._lines.pending)
        return events

    @property
    def pending(self) -> int:
        """Bytes of the event that has begun."""
        return self._size + self._lines.pending

    def finish(self) -> list[SseEvent]:
        """The stream has ended: its last event, where that is whole. Raises ServiceError where it is not."""
        rest = self._lines.rest()
        name = rest.partition(b":")[0]
        if name == b"data":
            self._take(rest)
        elif name not in (b"", b"id", b"retry"):
            raise ended_early("in the middle of an event")
        events = self._dispatch() if self._data else []
        if self._event or not all(event.done or _is_whole(event.data) for event in events):
            raise ended_early("in the middle of an event")
        return events

    def _take(self, line: bytes) -> Sequence[SseEvent]:
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
        return ()

    def _dispatch(self) -> list[SseEvent]:
        events = []
        if self._data:
            kind = self._event or "message"
            events = [SseEvent(event=kind, data=data, id=self._id) for data in _apart(self._data)]
        self._data, self._size, self._event = [], 0, ""
        return events

    def _check_size(self, pending: int) -> None:
        if self._size + pending > self._limit:
            raise too_large("an event", self._limit)


class NdjsonDecoder:
    """One JSON value per line; blank lines are skipped.

    Lines that are server-sent events after all are read as such, and a first value may take several lines.

    Args:
        max_event_bytes: longer lines are an error.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES, *, keep_halves: bool = False) -> None:
        self._limit = max_event_bytes
        self._lines = _Lines(_LF)
        self._keep_halves = keep_halves
        self._begun = False
        self._spread: list[bytes] = []
        self._spread_size = 0

    def feed(self, chunk: bytes) -> list[Any]:
        """Take the next bytes of the stream, and return the values of the lines they complete.

        Raises:
            ServiceError: a line is not JSON, or longer than the limit.
        """
        values = [value for line in self._lines.feed(chunk) for value in self._take(line)]
        self._check_size(self._lines.pending)
        return values

    @property
    def pending(self) -> int:
        """Bytes of the line, or of the lines of a first value, that have begun."""
        return self._spread_size + self._lines.pending

    def finish(self) -> list[Any]:
        """The stream has ended: the value of a last line without its line feed, if there is one.

        Raises:
            ServiceError: it ended inside a line.
        """
        rest = self._lines.rest()
        if self._spread:
            return [self._decode(b"\n".join([*self._spread, rest]))]
        try:
            return [self._decode(data) for data in _payload(rest)]
        except ServiceError:
            raise ended_early("in the middle of a line") from None

    def _take(self, line: bytes) -> list[Any]:
        self._check_size(len(line))
        if not self._spread:
            payload = _payload(line)
            try:
                values = [self._decode(data) for data in payload]
            except ServiceError:
                if self._begun or not line.lstrip(BLANK).startswith((b"{", b"[")):
                    raise
            else:
                self._begun = self._begun or bool(values)
                return values
        self._spread.append(line)
        self._spread_size += len(line) + 1
        self._check_size(self._spread_size)
        return []

    def _decode(self, data: bytes) -> Any:
        return decode_json(data, keep_halves=self._keep_halves)

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise too_large("a line", self._limit)


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


def is_done(data: str) -> bool:
    """Whether data is the ``[DONE]`` of OpenAI-shaped streams, which some write with blanks or quotes around it."""
    return len(data) < _LONGEST_DONE and data.strip().strip('"').upper() == "[DONE]"


def _apart(lines: list[bytes]) -> list[str]:
    """The data of the events that data lines make up: of one, but for lines that are JSON objects each."""
    data = utf8_text(b"\n".join(lines))
    if len(lines) > 1:
        parts = [part for part in data.split("\n") if part.strip()]
        if len(parts) > 1 and all(is_done(part) or _is_whole(part) for part in parts):
            return parts
    return [data] if data.strip() else []


def _is_whole(data: str) -> bool:
    """Whether data is a JSON object."""
    try:
        return data.lstrip().startswith("{") and isinstance(decode_json(data), dict)
    except ServiceError:
        return False


def _payload(line: bytes) -> list[bytes]:
    """What of a line is JSON: all of it, or the data of a server-sent event; nothing of one without data."""
    if line.startswith(SSE_FIELDS):
        name, _, value = line.partition(b":")
        return [value] if name == b"data" and value.strip() and not is_done(value.decode("utf-8", "replace")) else []
    return [line] if line.strip(BLANK) else []


def too_large(what: str, limit: int) -> ServiceError:
    """The error for ``what`` of a stream that is larger than ``limit`` bytes."""
    return bad_answer(
        f"{what} of the stream is larger than {limit} bytes", reason="invalid_response_format", retry=False
    )
