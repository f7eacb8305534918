"""``Streaming``: answers that come as events (SSE) or as lines of JSON (NDJSON), over ``HttpClient.stream``."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar, Unpack

import trio

from emp_trio.errors import ServiceError
from emp_trio.offload import off_loop
from emp_trio.protocols.answer_decoder import AnswerDecoder
from emp_trio.protocols.decoders import NdjsonDecoder, SseDecoder, SseEvent, ended_early
from emp_trio.protocols.http import CallOptions, Http, HttpClient, HttpStream
from emp_trio.protocols.part import ConnectorPart

E = TypeVar("E")

__all__ = ["EventStream", "Events", "NdjsonDecoder", "SseDecoder", "SseEvent", "Streaming"]


class _Decoder(Protocol[E]):
    @property
    def pending(self) -> int: ...

    def feed(self, chunk: bytes) -> list[E]: ...

    def finish(self) -> list[E]: ...


class EventStream:
    """Streamed answers of the service that an ``HttpClient`` calls.

    One event may be as large as ``max_response_bytes``. Errors of the stream are ServiceErrors with ``maybe_started``
    unless the call is idempotent; the timeout covers the whole block.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    @asynccontextmanager
    async def events(
        self,
        method: str,
        path: str,
        *,
        until: Callable[[SseEvent], bool] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Events[SseEvent]]:
        """Make a call and iterate over the server-sent events of its answer.

        Args:
            method, path, options: as for ``HttpClient.request``.
            until: says which event is the last one. It is still given out, and then the iteration ends; a stream that
                ends without it is a ServiceError. None: any end between two events is an end.

        Raises:
            ServiceError: as ``HttpClient.request`` does; or, from the iteration, the answer is no event stream, broke
                off, ended early, paused for longer than the read timeout or had too large an event.

        What the answer is, its bytes say and not its label: JSON that comes in place of events is one event per value.

        Leaving the block early, or a cancel, closes the connection.
        """
        async with self._http.stream(method, path, **_accepting("text/event-stream", options)) as stream:
            decoder = AnswerDecoder(stream.headers.get("content-type", ""), self._http.settings.max_response_bytes)
            yield Events(stream, decoder, until)

    @asynccontextmanager
    async def lines(
        self,
        method: str,
        path: str,
        *,
        until: Callable[[Any], bool] | None = None,
        keep_halves: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Events[Any]]:
        """Make a call and iterate over the lines of JSON of its answer; otherwise like :meth:`events`.

        Args:
            keep_halves: as of :func:`~emp_trio.protocols.wire_json.decode_json`: texts of a line go on in the next.
        """
        async with self._http.stream(method, path, **_accepting("application/x-ndjson", options)) as stream:
            decoder = NdjsonDecoder(self._http.settings.max_response_bytes, keep_halves=keep_halves)
            yield Events(stream, decoder, until)


class Events(Generic[E]):
    """The events of a stream as an async iterator.

    Attributes:
        stream: the answer that they come in: its headers, request id, and words for errors about what is in it.
    """

    def __init__(self, stream: HttpStream, decoder: _Decoder[E], until: Callable[[E], bool] | None) -> None:
        self.stream = stream
        self._decoder = decoder
        self._until = until
        self._ready: deque[E] = deque()
        self._ended = False  # no more bytes come
        self._over = False  # no more events are given out

    def __aiter__(self) -> Events[E]:
        return self

    async def __anext__(self) -> E:
        await trio.lowlevel.checkpoint()
        while not self._over and not self._ready:
            await self._read()
        if self._over:
            raise StopAsyncIteration
        event = self._ready.popleft()
        self._over = self._until is not None and self._until(event)
        return event

    async def _read(self) -> None:
        try:
            if self._ended:
                self._over = True
                if self._until is not None:
                    raise ended_early("before its last event")
                return
            decoder = self._decoder
            try:
                chunk = await anext(self.stream)
            except StopAsyncIteration:
                self._ended = True
                self._ready.extend(await off_loop(decoder.pending, decoder.finish))
            else:  # which may end a large event
                self._ready.extend(await off_loop(decoder.pending + len(chunk), decoder.feed, chunk))
        except ServiceError as error:
            self._over = True
            raise self.stream.explain(error) from error.__cause__


def _accepting(media_type: str, options: CallOptions) -> CallOptions:
    """``options`` with an accept header, unless they have one."""
    headers = options.get("headers") or {}
    if any(name.lower() == "accept" for name in headers):
        return options
    return {**options, "headers": {**headers, "accept": media_type}}


class Streaming(ConnectorPart):
    """Attaches ``self.streaming`` to a connector that lists ``Http``."""

    requires = (Http,)
    http: HttpClient
    streaming: EventStream

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.streaming = EventStream(self.http)
        yield
