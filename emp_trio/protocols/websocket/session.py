"""``WebSocketSession``: an open WebSocket, to send to and to read from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from emp_trio.errors import ServiceError

if TYPE_CHECKING:
    from emp_trio.protocols.websocket.connection import Connection


class WebSocketSession:
    """An open WebSocket, good inside the block of ``WebSocketClient.open``: any task may send, one at a time reads."""

    def __init__(self, connection: Connection, explain: Callable[[ServiceError], ServiceError]) -> None:
        self._connection = connection
        self._explain = explain

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent; messages that came before may still be read."""
        return self._connection.ended.is_set()

    async def send(self, message: str | bytes) -> None:
        """Send a text or a binary message.

        Raises:
            ServiceError: the socket is closed or was lost before the message was on the wire.

        A cancelled send may still go out, whole.
        """
        from emp_trio.protocols.websocket.connection import OutgoingMessage

        sending = OutgoingMessage(message)
        try:
            await self._connection.outbox.send(sending)
        except trio.BrokenResourceError:
            raise self._lost() from None
        await sending.done.wait()
        if sending.error is not None:
            raise self._explain(sending.error) if isinstance(sending.error, ServiceError) else sending.error

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text. Errors and cancellation as for :meth:`send`."""
        await self.send(msgspec.json.encode(value).decode())

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            ServiceError: there will be none, because the service closed the socket, or it was lost.
        """
        try:
            return await self._connection.inbox.receive()
        except trio.EndOfChannel:
            raise self._lost() from None

    def messages(self) -> AsyncIterator[str | bytes]:
        """The messages as they come, until the service closes the socket normally.

        Iterating raises ServiceError where the socket ends in another way.
        """
        return self

    def __aiter__(self) -> WebSocketSession:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message."""
        try:
            return await self._connection.inbox.receive()
        except trio.EndOfChannel:
            if (error := self._connection.error()) is not None:
                raise self._explain(error) from None
            raise StopAsyncIteration from None

    def _lost(self) -> ServiceError:
        closed = ServiceError("the service closed the socket", type="network_error", reason="connection_failed")
        return self._explain(self._connection.error() or closed)
