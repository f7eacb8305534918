"""An HTTP/1.1 server for ASGI applications whose answers can be cut at any byte, reset, or slowed down.

A server made for production can do none of that. Each request's scope has its
:class:`~emp_trio.testing.http11.ResponseWriter` in ``scope["extensions"]["writer"]``.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import h11
import trio
from starlette.types import ASGIApp, Message, Scope

from emp_trio.nursery import open_background
from emp_trio.testing.http11 import Cut, HttpConnection


class _Exchange:
    """One request to an application, and its answer."""

    def __init__(self, app: ASGIApp, connection: HttpConnection) -> None:
        self._app = app
        self._connection = connection
        self._body: bytes | None = None

    async def run(self) -> None:
        """Have the application answer the next request."""
        head, self._body = await self._connection.message()
        assert isinstance(head, h11.Request)
        await self._app(self._scope(head), self._receive, self._send)

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
            "extensions": {"writer": self._connection.writer},
        }

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        with suppress(Cut):
            await self._connection.until_left()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._connection.send(h11.Response(status_code=message["status"], headers=message["headers"]))
            return
        if message.get("body"):
            await self._connection.send(h11.Data(data=message["body"]))
        if not message.get("more_body"):
            await self._connection.send(h11.EndOfMessage())


async def _serve(app: ASGIApp, stream: trio.SocketStream) -> None:
    """Answer requests until one side has enough."""
    async with stream:
        following = b""
        try:
            while True:
                connection = HttpConnection(h11.SERVER, stream, following)
                await _Exchange(app, connection).run()
                if not connection.reusable:
                    return
                following = connection.following()
        except* (Cut, h11.RemoteProtocolError):
            pass


@asynccontextmanager
async def open_asgi_server(app: ASGIApp, port: int = 0, *, host: str = "127.0.0.1") -> AsyncIterator[str]:
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
