"""WebSocket answers for the faulty server: a script plays the service's side, byte by byte where it must.

::

    async def script(peer: Peer) -> None:
        job = await peer.receive()
        await peer.send('{"type": "progress"}')
        peer.reset()

    async with open_faulty_server(websocket(script)) as faulty: ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from emp_trio.testing.faulty_server import Answer, Exchange
from emp_trio.testing.http11 import Cut, Received
from emp_trio.testing.proxy import reset


class Peer:
    """The service's side of one WebSocket. It reads, and answers pings, only while it is asked to.

    Attributes:
        request: the upgrade request.
        close_code: the client's close code, once it has closed.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.request: Received = exchange.request
        self.close_code: int | None = None
        self._stream = exchange.stream
        self._connection = WSConnection(ConnectionType.SERVER)
        self._messages: deque[str | bytes] = deque()
        self._parts: list[str | bytes] = []
        self._sending = trio.StrictFIFOLock()

    async def accept(self) -> None:
        """Answer the upgrade."""
        self._connection.receive_data(self.request.head)
        list(self._connection.events())
        await self.raw(self._connection.send(AcceptConnection()))

    async def send(self, message: str | bytes) -> None:
        """Send a message."""
        event: TextMessage | BytesMessage = (
            TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
        )
        await self.raw(self._connection.send(event))

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        async with self._sending:
            await self._stream.send_all(data)

    async def receive(self) -> str | bytes:
        """The next message; answers pings meanwhile. Raises Cut when the client has closed or is gone."""
        while not self._messages:
            if self.close_code is not None:
                raise Cut
            data = bytes(await self._stream.receive_some(64 * 2**10))
            if not data:
                raise Cut
            self._connection.receive_data(data)
            for event in self._connection.events():
                await self._take(event)
        return self._messages.popleft()

    async def listen(self) -> None:
        """Read and answer pings until the client closes or is gone."""
        while True:
            await self.receive()

    async def mute(self) -> None:
        """Read nothing and say nothing any more."""
        await trio.sleep_forever()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame; the connection stays until the client has answered."""
        await self.raw(self._connection.send(CloseConnection(code=code, reason=reason)))
        await self.listen()

    def reset(self) -> None:
        """Reset the connection (RST)."""
        assert isinstance(self._stream, trio.SocketStream)
        reset(self._stream)

    async def _take(self, event: object) -> None:
        match event:
            case Ping():
                await self.raw(self._connection.send(event.response()))
            case CloseConnection():
                self.close_code = event.code
                with suppress(LocalProtocolError):  # where it is the answer to a close of ours
                    await self.raw(self._connection.send(event.response()))
            case TextMessage() | BytesMessage():
                self._parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                if event.message_finished:
                    whole = "".join(self._parts) if isinstance(event, TextMessage) else b"".join(self._parts)  # type: ignore[arg-type]
                    self._messages.append(whole)
                    self._parts = []


def websocket(script: Callable[[Peer], Awaitable[None]]) -> Answer:
    """Accept the upgrade, play ``script``, and end the connection without a close frame."""

    async def answer(exchange: Exchange) -> None:
        peer = Peer(exchange)
        await peer.accept()
        await script(peer)
        raise Cut

    return answer
