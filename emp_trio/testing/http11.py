"""HTTP/1.1 over a Trio stream with h11, and faulty responses.

The fakes, the faulty server and the relay of the conformance suite are built on it.
"""

from __future__ import annotations

from typing import Any, Final

import h11
import msgspec
import trio

from emp_trio.testing.proxy import reset

_CHUNK: Final = 64 * 2**10
_LARGEST_HEAD: Final = 2**20
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Cut(Exception):
    """The connection has been cut, as was asked for, or the other side has left: it is to be closed."""


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in lower case. ``head`` is all of it up to the body, byte by byte."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    head: bytes


class ResponseWriter:
    """Writes an answer to a connection, in pieces or slowly, and cuts it where that is wanted.

    Attributes:
        stream: it.
        left: bytes of the answer, its head included, that may still be sent before the connection is cut; None for all.
        reset: whether a cut is a reset (RST) instead of a close (FIN).
        piece, pause: size of the pieces in which bytes are sent, None for all at once, and seconds after each.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.left: int | None = None
        self.reset = False
        self.piece: int | None = None
        self.pause = 0.0

    async def send(self, data: bytes) -> None:
        """Send bytes, in pieces, up to the cut. Raises Cut where the connection has ended."""
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        size = self.piece or max(1, len(data))
        try:
            for start in range(0, len(data), size):
                await self.stream.send_all(data[start : start + size])
                await trio.sleep(self.pause)
        except _GONE:
            raise Cut from None
        if self.left == 0:
            if self.reset and isinstance(self.stream, trio.SocketStream):
                reset(self.stream)
            raise Cut


class HttpConnection:
    """One exchange of a request and an answer, from either side.

    Args:
        role: ``h11.SERVER`` or ``h11.CLIENT``.
        stream: the connection.
        data: what has already come of the next message.
    """

    def __init__(self, role: Any, stream: trio.abc.Stream, data: bytes = b"") -> None:
        self.writer = ResponseWriter(stream)
        self._stream = stream
        self._h11 = h11.Connection(role, max_incomplete_event_size=_LARGEST_HEAD)
        self._head = bytearray(data)  # as it came: h11 does not keep it
        self._in_head = True
        if data:
            self._h11.receive_data(data)

    async def message(self) -> tuple[h11.Request | h11.Response, bytes]:
        """The next request or final response, with its whole body.

        Raises:
            Cut: the other side has left.
            h11.RemoteProtocolError: it speaks no HTTP/1.1.
        """
        body = bytearray()
        head: h11.Request | h11.Response | None = None
        while True:
            match await self._event():
                case h11.Request() | h11.Response() as head:
                    del self._head[self._head.index(b"\r\n\r\n") + 4 :]
                    self._in_head = False
                case h11.Data(data=data):
                    body += data
                case h11.EndOfMessage() if head is not None:
                    return head, bytes(body)
                case h11.InformationalResponse():
                    pass
                case _:
                    raise Cut

    async def request(self) -> Received:
        """The next request; raises as :meth:`message`."""
        head, body = await self.message()
        assert isinstance(head, h11.Request)
        return Received(
            method=head.method.decode(),
            target=head.target.decode("latin-1"),
            headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
            body=body,
            head=bytes(self._head),
        )

    async def send(self, *events: Any) -> None:
        """Send h11 events; raises Cut where the connection has ended."""
        for event in events:
            await self.writer.send(self._h11.send(event) or b"")

    async def until_left(self) -> None:
        """Wait until the other side leaves; what it still says is kept for :meth:`following`."""
        while await self._receive():
            pass

    @property
    def reusable(self) -> bool:
        """Whether both sides have said everything, and another exchange may follow."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def following(self) -> bytes:
        """What has come after the message."""
        return self._h11.trailing_data[0]

    async def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self._receive()
        return event

    async def _receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(_CHUNK))
        except _GONE:
            raise Cut from None
        if self._in_head:
            self._head += data
        self._h11.receive_data(data)
        return data


async def read_request(stream: trio.abc.Stream, data: bytes) -> tuple[Received, bytes]:
    """The next request, and what came after it. Raises Cut where the client has gone, or speaks no HTTP/1.1.

    Args:
        data: what came after the request before.
    """
    connection = HttpConnection(h11.SERVER, stream, data)
    try:
        return await connection.request(), connection.following()
    except h11.RemoteProtocolError:
        raise Cut from None
