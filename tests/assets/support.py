"""Jobs, and a line to a store that can be slowed, stopped and torn."""

from __future__ import annotations

import functools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from emp_trio.jobs import Job, JobContext


def a_job(id: str = "job-1", **ctx: Any) -> Job:
    """A job with a context."""
    return Job(id=id, type="image", ctx=JobContext(**ctx))


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """``data`` as a service streams it."""
    for at in range(0, len(data), size):
        await trio.lowlevel.checkpoint()
        yield data[at : at + size]


def closed_port() -> int:
    """A loopback port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Line:
    """A TCP forwarder in front of a store.

    Attributes:
        port: where it listens.
        sent: bytes that came from the client so far.
        delay: seconds before each piece of an answer goes back.
        stop_after: bytes from the client after which nothing moves any more.
        tear_after: bytes from the client after which every connection is reset, also new ones.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "", parts.port or 80)
        self.port = 0
        self.sent = 0
        self.delay = 0.0
        self.stop_after: int | None = None
        self.tear_after: int | None = None
        self._open: set[trio.SocketStream] = set()
        self._changed = trio.Event()

    def endpoint(self, target: str) -> str:
        """The store's URL, through this line."""
        return target.replace(urlsplit(target).netloc, f"127.0.0.1:{self.port}")

    async def until_sent(self, number: int) -> None:
        """Wait until the client has sent that many bytes."""
        while self.sent < number:
            await self._changed.wait()

    async def until_quiet(self, connections: int = 0) -> None:
        """Wait until no more than that many connections are open."""
        while len(self._open) > connections:
            await self._changed.wait()

    async def serve(self, client: trio.SocketStream) -> None:
        """Forward one connection."""
        if self._torn():
            _reset(client)
            return
        self._open.add(client)
        server = await trio.open_tcp_stream(*self._target)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._up, client, server, nursery.cancel_scope)
                await self._down(server, client)
                nursery.cancel_scope.cancel()
        finally:
            self._open.discard(client)
            self._wake()
            await trio.aclose_forcefully(server)
            await trio.aclose_forcefully(client)

    async def _up(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in client:
                self.sent += len(data)
                self._wake()
                if self._torn():
                    _reset(client)
                    break
                if self.stop_after is not None and self.sent > self.stop_after:
                    continue  # taken and not passed on: the store never sees it, and never answers
                await server.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def _down(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        try:
            async for data in server:
                await trio.sleep(self.delay)
                await client.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _torn(self) -> bool:
        return self.tear_after is not None and self.sent > self.tear_after

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    stream.socket.close()


@asynccontextmanager
async def open_line(target: str) -> AsyncIterator[Line]:
    """A line to the store at the URL ``target``."""
    line = Line(target)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, line.serve, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        line.port = listeners[0].socket.getsockname()[1]
        yield line
        nursery.cancel_scope.cancel()
