"""A TCP proxy that injects faults: latency, bandwidth, cuts, resets, silence, refusal. For tests, on loopback.

::

    async with open_proxy(server_port) as proxy:
        proxy.cut_before_reply = 1   # the next request arrives, its reply does not
        ... connect to 127.0.0.1:proxy.port ...

"Up" is from client to server, "down" the way back. Settings act on bytes that pass from then on, of every connection.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_CHUNK = 64 * 2**10


class FaultProxy:
    """A running proxy; made by :func:`open_proxy`.

    Attributes:
        port: where it listens on 127.0.0.1.
        latency: seconds added before each piece that goes down.
        bandwidth: bytes per second that go down on each connection; None for no limit.
        cut_before_reply: so many of the next replies are not passed on: their connections are closed instead.
        cut_after: each connection is closed after so many bytes down; None for never.
        cut_at: the connection that would bring ``bytes_down`` above this number is closed before it does, once; None
            for never.
        cut_with_reset: whether that is a reset (RST) instead of a close (FIN).
        transcript: collects what goes down, where it is not None.
        blackhole: everything is read and nothing passed on, in both directions: half-open, as behind a dead router.
        refuse: new connections are reset at once.
        accepted: connections taken so far.
        bytes_up, bytes_down: passed on so far.
    """

    def __init__(self, port: int, host: str) -> None:
        self.port = 0
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.cut_before_reply = 0
        self.cut_after: int | None = None
        self.cut_at: int | None = None
        self.cut_with_reset = False
        self.transcript: bytearray | None = None
        self.blackhole = False
        self.refuse = False
        self.accepted = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._upstream = (host, port)
        self._clients: set[trio.SocketStream] = set()

    @property
    def connections(self) -> int:
        """Connections that are open now, and that their clients have not left."""
        return len(self._clients)

    def reset_all(self) -> None:
        """Reset (RST) every open connection, on the client's side."""
        for client in list(self._clients):
            reset(client)

    def turn_to(self, port: int, host: str = "127.0.0.1") -> None:
        """Lead new connections to another server, as a name of the DNS or a moving address would; old ones stay."""
        self._upstream = (host, port)

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        if self.refuse:
            reset(client)
            return
        self._clients.add(client)
        try:
            server = await trio.open_tcp_stream(*self._upstream)
        except OSError:
            reset(client)  # as the client of a server that is down would see it
        else:
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(self._up, client, server, nursery.cancel_scope)
                nursery.start_soon(self._down, server, client, nursery.cancel_scope)
        finally:
            self._clients.discard(client)
            await trio.aclose_forcefully(client)

    async def _up(self, client: trio.SocketStream, server: trio.SocketStream, over: trio.CancelScope) -> None:
        try:
            while data := await client.receive_some(_CHUNK):
                if not self.blackhole:
                    self.bytes_up += len(data)
                    await server.send_all(data)
            self._clients.discard(client)
            if self.blackhole:
                over.cancel()  # nobody is left to be kept waiting
            await server.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            over.cancel()

    async def _down(self, server: trio.SocketStream, client: trio.SocketStream, over: trio.CancelScope) -> None:
        passed = 0
        try:
            while data := await server.receive_some(_CHUNK):
                if self.blackhole:
                    continue
                if self.cut_before_reply > 0:
                    self.cut_before_reply -= 1
                    break
                await trio.sleep(self.latency)
                if self.cut_after is not None:
                    data = data[: max(0, self.cut_after - passed)]
                last = self.cut_at is not None and self.bytes_down + len(data) > self.cut_at
                if last:
                    data, self.cut_at = data[: (self.cut_at or 0) - self.bytes_down], None
                for piece in self._pieces(data):
                    self.bytes_down += len(piece)
                    if self.transcript is not None:
                        self.transcript += piece
                    await client.send_all(piece)
                    passed += len(piece)
                    if self.bandwidth is not None:
                        await trio.sleep(len(piece) / self.bandwidth)
                if last and self.cut_with_reset:
                    reset(client)
                if last or (self.cut_after is not None and passed >= self.cut_after):
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if self.blackhole:
            await trio.sleep_forever()  # a dead router does not pass on the end of a connection either
        over.cancel()

    def _pieces(self, data: bytes | bytearray) -> list[bytes]:
        """``data`` in tenths of a second of the bandwidth."""
        size = len(data) if self.bandwidth is None else max(1, int(self.bandwidth / 10))
        return [bytes(data[i : i + size]) for i in range(0, len(data), size or 1)]


def reset(stream: trio.SocketStream) -> None:
    """Close a connection with RST instead of FIN."""
    if stream.socket.fileno() != -1:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


@asynccontextmanager
async def open_proxy(port: int, host: str = "127.0.0.1") -> AsyncIterator[FaultProxy]:
    """A proxy in front of ``host:port``, listening on a free port while the block runs."""
    proxy = FaultProxy(port, host)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, proxy._serve, 0, host="127.0.0.1"))
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
