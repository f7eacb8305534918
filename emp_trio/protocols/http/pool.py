"""A pool of HTTP connections that takes the same time whatever the number of them.

httpcore's own looks at every connection for every connection, at each beginning and each end of a request: with 50 jobs
at a service that is 5 ms of CPU for a request, and the exchange itself takes a tenth of that. The connections are
httpcore's, made so that a request gives way to other tasks only where it has to wait: when the answers of 50 jobs come
together and each gives way at each step, all of their next calls begin when the work of all of them is done.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from typing import Final

import httpcore
import httpx
import trio

from emp_trio.protocols.http.httpcore_lock import without_lock

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


# httpcore's errors in httpx's words, as httpx's own transport puts them.
_ERRORS: Final[dict[type, type[httpx.TransportError]]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
}


class Pool(httpx.AsyncBaseTransport):
    """An httpx transport, HTTP/1.1 without a proxy.

    Args:
        tls: for https origins.
        most: connections in use at once; further requests wait for one.
        keep: seconds an idle connection is kept.

    A request that is cancelled closes its connection.
    """

    def __init__(self, tls: ssl.SSLContext, *, most: int, keep: float) -> None:
        self._tls = tls
        self._keep = keep
        self._network = httpcore.TrioBackend()
        self._places = trio.Semaphore(most)
        self._idle: defaultdict[str, deque[httpcore.AsyncHTTP11Connection]] = defaultdict(deque)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request on a connection that is free for it; the connection is back when the answer is closed.

        Raises:
            httpx.TransportError: no connection, or no answer.
        """
        url = request.url
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        connection: httpcore.AsyncHTTP11Connection | None = None
        try:
            connection = await self._connection(sent)
            response = await connection.handle_async_request(sent)
        except BaseException as error:
            await self._give_back(sent.url.origin, connection)
            if (translated := _translated(error)) is not None:
                raise translated from error
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, self, sent.url.origin, connection),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the idle connections; those in use close with their answers."""
        for waiting in self._idle.values():
            while waiting:
                await _close(waiting.pop())

    async def _connection(self, request: httpcore.Request) -> httpcore.AsyncHTTP11Connection:
        """The connection that was used last, which is the likeliest to stand; or a new one."""
        waiting = self._idle[str(request.url.origin)]
        while waiting:
            connection = waiting.pop()
            if not connection.has_expired():
                return connection
            await _close(connection)
        await self._tidy()
        return await self._connect(request)

    async def _connect(self, request: httpcore.Request) -> httpcore.AsyncHTTP11Connection:
        origin, trace = request.url.origin, request.extensions["trace"]
        host, timeout = origin.host.decode("ascii"), request.extensions["timeout"]["connect"]
        await trace("connection.connect_tcp.started", {})
        stream: httpcore.AsyncNetworkStream = _Stream(
            await self._network.connect_tcp(host, origin.port, timeout, socket_options=_KEEP_ALIVE)
        )
        if origin.scheme == b"https":
            await trace("connection.start_tls.started", {})
            try:
                stream = await stream.start_tls(self._tls, server_hostname=host, timeout=timeout)
            except BaseException:
                with trio.CancelScope(shield=True):  # closing a socket does not wait for the other side
                    await stream.aclose()
                raise
        connection = httpcore.AsyncHTTP11Connection(origin, stream, keepalive_expiry=self._keep)
        without_lock(connection)  # only one request at a time has it
        return connection

    async def _tidy(self) -> None:
        """Close what nobody has wanted lately at any origin: answers may lead to ever new ones."""
        for origin, waiting in list(self._idle.items()):
            while waiting and waiting[0].has_expired():
                await _close(waiting.popleft())
            if not self._idle.get(origin):
                self._idle.pop(origin, None)

    async def _give_back(self, origin: httpcore.Origin, connection: httpcore.AsyncHTTP11Connection | None) -> None:
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


class _Stream(httpcore.AsyncNetworkStream):
    """A TCP stream that writes at once what fits into the socket's buffer."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket = stream.get_extra_info("socket")
        self.read = stream.read  # type: ignore[method-assign]
        self.aclose = stream.aclose  # type: ignore[method-assign]
        self.start_tls = stream.start_tls  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        with suppress(OSError):  # no room, or the connection is gone: the stream says it in httpcore's words
            buffer = buffer[os.write(self._socket.fileno(), buffer) :]
        if buffer:
            await self._stream.write(buffer, timeout)


class _Body(httpx.AsyncByteStream):
    """The body of an answer; its connection goes back to the pool when it is closed."""

    def __init__(
        self,
        response: httpcore.Response,
        pool: Pool,
        origin: httpcore.Origin,
        connection: httpcore.AsyncHTTP11Connection,
    ) -> None:
        assert isinstance(response.stream, AsyncIterable)
        self._response = response
        self._pieces = aiter(response.stream)
        self._pool = pool
        self._origin = origin
        self._connection: httpcore.AsyncHTTP11Connection | None = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except Exception as error:
            if (translated := _translated(error)) is not None:
                raise translated from error
            raise

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):  # closing a socket does not wait for the other side
                await self._response.aclose()
            await self._pool._give_back(self._origin, connection)


def _translated(error: BaseException) -> httpx.TransportError | None:
    """An error of httpcore as httpx has it; None for any other."""
    for kind in type(error).__mro__:
        if kind in _ERRORS:
            return _ERRORS[kind](str(error))
    return None


async def _close(connection: httpcore.AsyncHTTP11Connection) -> None:
    with trio.CancelScope(shield=True):
        await connection.aclose()
