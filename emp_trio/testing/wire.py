"""An HTTP/1.1 server for ASGI applications whose answers can be cut at any byte, reset, or slowed down.

A server made for production can do none of that. Each request's scope has its :class:`Wire` in
``scope["extensions"]["wire"]``.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import h11
import trio
from starlette.types import ASGIApp, Message, Scope

from emp_trio.nursery import open_background
from emp_trio.testing.proxy import reset

_CHUNK: Final = 64 * 2**10
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Cut(Exception):
    """The connection has been cut, as was asked for, or the client has left."""


class Wire:
    """The connection that an answer goes down.

    Attributes:
        left: bytes of the answer, its head included, that still go; then the connection is closed. None for all.
        reset: closes it with a reset (RST) instead of an end (FIN).
        rate: bytes per second; None for as fast as it goes.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.left: int | None = None
        self.reset = False
        self.rate: float | None = None
        self._stream = stream

    async def send(self, data: bytes) -> None:
        """Send bytes, up to the cut. Raises Cut where the connection has ended."""
        wanted = len(data)
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        size = max(1, wanted if self.rate is None else int(self.rate / 10))
        try:
            for start in range(0, len(data), size):
                await self._stream.send_all(data[start : start + size])
                if self.rate is not None:
                    await trio.sleep(size / self.rate)
        except _GONE:
            raise Cut from None
        if self.left == 0:
            if self.reset:
                reset(self._stream)
            raise Cut


class _Connection:
    def __init__(self, app: ASGIApp, stream: trio.SocketStream) -> None:
        self._app = app
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)
        self._wire = Wire(stream)
        self._body: bytes | None = None

    async def serve(self) -> None:
        """Answer requests until one side has enough."""
        while True:
            request = await self._event()
            if not isinstance(request, h11.Request):
                return
            body = bytearray()
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                return
            self._body = bytes(body)
            self._wire = Wire(self._stream)
            await self._app(self._scope(request), self._receive, self._send)
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()

    async def _event(self) -> Any:
        while True:
            if self._h11.they_are_waiting_for_100_continue:
                await self._put(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._more())

    async def _more(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_CHUNK))
        except _GONE:
            raise Cut from None

    def _scope(self, request: h11.Request) -> Scope:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode(),
            "scheme": "http",
            "path": path.decode(),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": None,
            "server": None,
            "extensions": {"wire": self._wire},
        }

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        try:
            while data := await self._more():
                self._h11.receive_data(data)
        except Cut:
            pass
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._put(h11.Response(status_code=message["status"], headers=message["headers"]))
            return
        if message.get("body"):
            await self._put(h11.Data(data=message["body"]))
        if not message.get("more_body"):
            await self._put(h11.EndOfMessage())

    async def _put(self, event: Any) -> None:
        await self._wire.send(self._h11.send(event) or b"")


async def _serve(app: ASGIApp, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            await _Connection(app, stream).serve()
        except* (Cut, h11.RemoteProtocolError):
            pass


@asynccontextmanager
async def open_wire_server(app: ASGIApp, port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve ``app`` over HTTP.

    Args:
        port: 0 for any free one.

    Yields:
        the base URL.

    Raises:
        OSError: the address can't be bound.

    When the block ends open connections are closed and running handlers cancelled. An error of the application is
    raised in the block.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    port = listeners[0].socket.getsockname()[1]
    async with open_background() as nursery:
        await nursery.start(functools.partial(trio.serve_listeners, functools.partial(_serve, app), listeners))
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
