"""A pool of HTTP connections that takes the same time whatever the number of them.

httpcore's own looks at every connection for every connection, at each beginning and each end of a request: with 50 jobs
at a service that is 5 ms of CPU for a request, and the exchange itself takes a tenth of that. The connections are
httpcore's.
"""

from __future__ import annotations

import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import httpcore
import trio

# Seconds of silence until TCP asks whether the peer is there, seconds between two questions, and questions without an
# answer: a call may wait for minutes, and a router on the way forgets what is silent (A1111 reference 10.1).
_QUESTIONS: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_KEEP_ALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _QUESTIONS.items()
        if hasattr(socket, name)
    ),
]


class Pool(httpcore.AsyncConnectionPool):
    """Stands in for httpcore's pool in an ``httpx.AsyncHTTPTransport``.

    Args:
        tls: for https origins.
        most: connections in use at once; further requests wait for one.
        keep: seconds an idle connection is kept.

    A request that is cancelled closes its connection.
    """

    def __init__(self, tls: ssl.SSLContext, *, most: int, keep: float) -> None:
        self._tls = tls
        self._keep = keep
        self._places = trio.Semaphore(most)
        self._idle: defaultdict[str, deque[httpcore.AsyncHTTPConnection]] = defaultdict(deque)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request on a connection that is free for it; the connection is back when the answer is closed."""
        origin = request.url.origin
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        connection: httpcore.AsyncHTTPConnection | None = None
        try:
            connection = await self._connection(origin)
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._give_back(origin, connection)
            raise
        stream = _Lent(response.stream, self, origin, connection)
        return httpcore.Response(
            response.status, headers=response.headers, content=stream, extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close the idle connections; those in use close with their answers."""
        for waiting in self._idle.values():
            while waiting:
                await _close(waiting.pop())

    async def _connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """The connection that was used last, which is the likeliest to stand; or a new one."""
        waiting = self._idle[str(origin)]
        while waiting:
            connection = waiting.pop()
            if not connection.has_expired():
                return connection
            await _close(connection)
        await self._tidy()
        return httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._tls, keepalive_expiry=self._keep, socket_options=_KEEP_ALIVE
        )

    async def _tidy(self) -> None:
        """Close what nobody has wanted lately at any origin: answers may lead to ever new ones."""
        for origin, waiting in list(self._idle.items()):
            while waiting and waiting[0].has_expired():
                await _close(waiting.popleft())
            if not self._idle.get(origin):
                self._idle.pop(origin, None)

    async def _give_back(self, origin: httpcore.Origin, connection: httpcore.AsyncHTTPConnection | None) -> None:
        """Keep a connection that is ready for the next request; close any other, and those nobody has wanted lately."""
        try:
            waiting = self._idle[str(origin)]
            if connection is not None and connection.is_idle() and not connection.is_closed():
                waiting.append(connection)
            elif connection is not None:
                await _close(connection)
            while waiting and waiting[0].has_expired():
                await _close(waiting.popleft())
        finally:
            self._places.release()


class _Lent:
    """The body of an answer; its connection goes back to the pool when it is closed."""

    def __init__(
        self,
        stream: Any,
        pool: Pool,
        origin: httpcore.Origin,
        connection: httpcore.AsyncHTTPConnection,
    ) -> None:
        self._stream = stream
        self._pool = pool
        self._origin = origin
        self._connection: httpcore.AsyncHTTPConnection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return cast(AsyncIterator[bytes], self._stream.__aiter__())

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):  # closing a socket does not wait for the other side
                await self._stream.aclose()
            await self._pool._give_back(self._origin, connection)


async def _close(connection: httpcore.AsyncHTTPConnection) -> None:
    with trio.CancelScope(shield=True):
        await connection.aclose()
