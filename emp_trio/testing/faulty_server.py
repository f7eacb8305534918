"""A raw HTTP server that misbehaves on demand: slow, cut, oversized, silent, garbage. For tests, on loopback.

::

    async with open_faulty_server(reply(503), reply(200, json={"ok": True})) as faulty:
        ... call faulty.url twice ...
        assert faulty.requests[0].method == "POST"

Each request gets the next answer; the last one stays. An answer is a function of the :class:`Exchange`, so a test may
write its own. Nothing is added to what an answer sends. For WebSockets see :mod:`emp_trio.testing.faulty_websocket`.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import trio

from emp_trio.testing.http11 import Cut, Received, ResponseWriter, read_request


class Exchange(ResponseWriter):
    """One request and the connection to answer it on.

    Attributes:
        request: what came.
    """

    def __init__(self, request: Received, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.request = request

    async def until_left(self) -> None:
        """Say nothing until the client goes away."""
        while await self.stream.receive_some(64 * 2**10):
            pass
        raise Cut


Answer: TypeAlias = Callable[[Exchange], Awaitable[None]]


def reply(
    status: int = 200,
    body: bytes | str = b"",
    *,
    json: Any = msgspec.UNSET,
    content_type: str = "text/plain",
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> Answer:
    """A whole answer.

    Args:
        json: instead of ``body``.
        headers: added; may repeat what is there.
        length: told in content-length, instead of the truth.
    """
    data = body.encode() if isinstance(body, str) else body
    if json is not msgspec.UNSET:
        data, content_type = msgspec.json.encode(json), "application/json"
    lines = {"content-type": content_type, "content-length": str(len(data) if length is None else length)}
    lines |= headers or {}
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head.encode("latin-1") + data)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    """A redirect to ``location``."""
    return reply(status, headers={"location": location})


def too_many(**headers: str) -> Answer:
    """429 with the headers named: ``too_many(retry_after="2")``."""
    return reply(
        429,
        json={"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def slow(answer: Answer, seconds: float) -> Answer:
    """Nothing for so long, then ``answer``."""

    async def slowly(exchange: Exchange) -> None:
        await trio.sleep(seconds)
        await answer(exchange)

    return slowly


def dribble(answer: Answer, *, piece: int = 1, pause: float = 0.0) -> Answer:
    """``answer`` in pieces of so many bytes, with pauses between them."""

    async def drop_by_drop(exchange: Exchange) -> None:
        exchange.piece, exchange.pause = piece, pause
        await answer(exchange)

    return drop_by_drop


def cut(answer: Answer, at: int, *, reset: bool = False) -> Answer:
    """``answer`` up to byte ``at``; then the connection is closed, or reset."""

    async def broken_off(exchange: Exchange) -> None:
        exchange.left, exchange.reset = at, reset
        await answer(exchange)
        raise Cut

    return broken_off


def hang() -> Answer:
    """Half-open: the request is taken, and nothing ever comes back."""

    async def silent(exchange: Exchange) -> None:
        await exchange.until_left()

    return silent


def raw(data: bytes, *, close: bool = True) -> Answer:
    """These bytes, and the end of the connection."""

    async def bytes_only(exchange: Exchange) -> None:
        await exchange.send(data)
        if close:
            raise Cut

    return bytes_only


def event_stream(*frames: bytes, end: bool = True, content_type: str = "text/event-stream") -> Answer:
    """A chunked answer, each frame a chunk of its own; without ``end`` it stays open and silent."""

    async def streamed(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 X\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await exchange.send(head.encode())
        for frame in frames:
            await exchange.send(b"%x\r\n%s\r\n" % (len(frame), frame))
        if not end:
            await exchange.until_left()
        await exchange.send(b"0\r\n\r\n")

    return streamed


class Faulty:
    """A running server; made by :func:`open_faulty_server`.

    Attributes:
        port: on 127.0.0.1.
        requests: what has come so far.
        connections: taken so far.
        open_connections: open now.
    """

    def __init__(self, answers: tuple[Answer, ...], tls: ssl.SSLContext | None) -> None:
        self.port = 0
        self.requests: list[Received] = []
        self.connections = 0
        self.open_connections = 0
        self._answers = answers
        self._tls = tls
        self._news = trio.Event()

    @property
    def url(self) -> str:
        """Base URL for HTTP."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """URL for WebSockets."""
        return "ws" + self.url.removeprefix("http")

    async def received(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.requests) < count:
            await self._news.wait()

    async def emptied(self) -> None:
        """Wait until no connection is open."""
        while self.open_connections:
            await self._news.wait()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        self.open_connections += 1
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        try:
            rest = b""
            while True:
                request, rest = await read_request(stream, rest)
                self.requests.append(request)
                self._tell()
                answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
                await answer(Exchange(request, stream))
        except* (Cut, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)
            self.open_connections -= 1
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def open_faulty_server(*answers: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Faulty]:
    """A server on a free port of 127.0.0.1 while the block runs, with TLS where a context is given."""
    faulty = Faulty(answers, tls)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, faulty._serve, 0, host="127.0.0.1"))
        faulty.port = listeners[0].socket.getsockname()[1]
        yield faulty
        nursery.cancel_scope.cancel()
