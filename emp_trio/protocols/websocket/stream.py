"""The byte stream under a WebSocket: connecting it, and watching it for what trio-websocket does not tell."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urlsplit

import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.network_errors import network_fault
from emp_trio.protocols.urls import origin


class WatchedStream(trio.abc.Stream):
    """The byte stream, watched: when bytes came last, how the answer began, and that it has ended."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._head = b""
        self._over = trio.Event()
        self.received_at = trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the stream does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As the stream does, taking note of what came when."""
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._over.set()
            raise
        if data:
            self.received_at = trio.current_time()
            self._head = self._head or bytes(data[:16])
        else:
            self._over.set()
        return data

    async def aclose(self) -> None:
        """As the stream does."""
        self._over.set()
        await self._stream.aclose()

    async def cancel_at_end(self, scope: trio.CancelScope) -> None:
        """Wait for the end of the stream, then cancel ``scope``."""
        await self._over.wait()
        scope.cancel()

    def refusal(self) -> ServiceError:
        """The error for a handshake during which the stream ended."""
        status = re.match(rb"HTTP/1\.\d (\d\d\d)", self._head)
        if status is not None and status[1] != b"101":
            return describe_status(int(status[1]), {}, b"")
        return lost("the connection ended before the WebSocket handshake did")


async def connect(url: str, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """A byte stream to the host of ``url``, with TLS where a context is given. Raises ServiceError."""
    _, host, port = origin(url)
    phase = "connecting"
    try:
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        if tls is not None:
            phase = "in the TLS handshake"
            stream = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except (OSError, trio.BrokenResourceError, UnicodeError) as error:
        raise network_fault(error, phase, sent=False) from error
    return stream


def target(url: str) -> tuple[str, str]:
    """Host header and request target of ``url``."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def lost(text: str) -> ServiceError:
    """The error for a connection that is gone."""
    return ServiceError(text, type="network_error", reason="connection_failed")
