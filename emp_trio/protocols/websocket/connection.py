"""The connection under a session: trio-websocket with a reader that always drains, a writer, and a watchdog.

trio-websocket's ways that this module is built around (each has a test):

* A handshake that breaks off is only noticed by its timeout, and a closing handshake waits for a minute.
* Its ping is never answered while messages wait to be read: pongs come in order, behind them.
* A message above its limit of 1 MiB ends the connection.
* What went wrong in a handshake is not in the error, and errors of its reader come out of the nursery in a group.
* A cancelled send may leave half a frame on the wire: sends are made by a task of the socket's own.
"""

from __future__ import annotations

import copy
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import h11
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection, wrap_client_stream

from emp_trio.errors import ServiceError
from emp_trio.failures import FailureType
from emp_trio.nursery import errors_in
from emp_trio.protocols.http.errors import describe_status
from emp_trio.protocols.websocket.settings import WebSocketSettings
from emp_trio.protocols.websocket.stream import WatchedStream, connect, lost, target
from emp_trio.retry import parse_retry_after
from emp_trio.secrets import excerpt

_RECEIVE_BYTES: Final = 64 * 2**10

# What a peer means by closing, where it is not the normal end (RFC 6455, 7.4.1): type, reason, retry.
_CLOSES: Final[dict[int, tuple[FailureType, str, bool]]] = {
    1001: ("service_error", "service_unavailable", True),
    1002: ("response_error", "corrupted_data", True),
    1003: ("validation_error", "invalid_format", False),
    1006: ("network_error", "connection_failed", True),
    1007: ("response_error", "corrupted_data", True),
    1008: ("auth_error", "insufficient_permissions", False),
    1009: ("response_error", "invalid_response_format", False),
    1012: ("service_error", "service_unavailable", True),
    1013: ("service_error", "service_unavailable", True),
}
_NORMAL: Final = (1000, 1005)


class OutgoingMessage:
    """A message on its way out: ``done`` is set when it is on the wire, or ``error`` says why it is not."""

    def __init__(self, message: str | bytes) -> None:
        self.message = message
        self.done = trio.Event()
        self.error: Exception | None = lost("the socket was lost")


class Connection:
    """One connection, made by :func:`open_connection`.

    Attributes:
        inbox: the messages, in order; at its end ``error()`` says why, or None after a normal close.
        outbox: takes messages to send.
        ended: set when nothing more can be sent.
    """

    def __init__(self, stream: WatchedStream, settings: WebSocketSettings) -> None:
        self._stream = stream
        self._settings = settings
        self._to_inbox, self.inbox = trio.open_memory_channel[str | bytes](settings.message_queue)
        self.outbox, self._from_outbox = trio.open_memory_channel[OutgoingMessage](0)
        self._connection: WebSocketConnection | None = None
        self._failure: ServiceError | None = None
        self._stalled = False
        self._running = trio.CancelScope(shield=True)
        self.opened = trio.Event()
        self.ended = trio.Event()

    def error(self) -> ServiceError | None:
        """A new error that says why the connection ended; None where the peer closed it normally, or it is open."""
        return copy.copy(self._failure)

    async def run(self, host: str, resource: str, headers: Mapping[str, str]) -> None:
        """Shake hands, then move messages until :meth:`close`. Raises nothing of trio-websocket's.

        A cancel from outside does not reach in here: the block that uses the socket may still have something to send in
        its cleanup. It ends that block, and the end of the block ends this within the close timeout.
        """
        try:
            with self._running:
                await self._move_messages(host, resource, headers)
        except* ConnectionRejected as group:
            self._end(_rejection(group))
        except* (ConnectionClosed, HandshakeError, wsproto.utilities.ProtocolError, h11.ProtocolError):
            where = "to the upgrade" if self._connection is None else "of the service"
            text = f"the answer {where} is not a WebSocket's"
            self._end(ServiceError(text, type="response_error", reason="invalid_response_format"))
        finally:
            self._end(self._stream.refusal() if self._connection is None else lost("the socket was closed here"))
            self._to_inbox.close()
            self.opened.set()

    async def _move_messages(self, host: str, resource: str, headers: Mapping[str, str]) -> None:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as handshake:
                nursery.start_soon(self._stream.cancel_at_end, handshake)
                self._connection = await wrap_client_stream(
                    nursery,
                    self._stream,  # type: ignore[arg-type]  # any stream does
                    host,
                    resource,
                    extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
                    max_message_size=self._settings.max_message_bytes,
                    receive_buffer_size=_RECEIVE_BYTES,
                )
            if self._connection is None:
                nursery.cancel_scope.cancel()
                return
            self.opened.set()
            nursery.start_soon(self._write, self._connection)
            nursery.start_soon(self._watch, self._connection, nursery)
            await self._drain(self._connection)

    async def close(self) -> None:
        """Say goodbye if the peer still listens, within the close timeout, then close the connection anyhow."""
        with trio.move_on_after(self._settings.close_timeout, shield=True):
            try:
                if self._connection is not None and not self.ended.is_set():
                    await self._connection.aclose()
            finally:
                await trio.aclose_forcefully(self._stream)
        self._running.cancel()

    async def _drain(self, connection: WebSocketConnection) -> None:
        """Move every message into the inbox; a full inbox holds up the peer."""
        try:
            while True:
                message = await connection.get_message()
                try:
                    self._to_inbox.send_nowait(message)
                except trio.WouldBlock:
                    self._stalled = True
                    await self._to_inbox.send(message)
                    self._stalled = False
        except ConnectionClosed as closed:
            self._end(_closing(closed, self._settings.max_message_bytes))
        finally:
            self._to_inbox.close()  # not before: what came before the end is still to be read

    async def _write(self, connection: WebSocketConnection) -> None:
        async with self._from_outbox:
            async for sending in self._from_outbox:
                try:
                    await connection.send_message(sending.message)
                    sending.error = None
                except ConnectionClosed as closed:
                    self._end(_closing(closed, self._settings.max_message_bytes))
                    sending.error = self.error() or lost("the service has closed the socket")
                except ValueError as error:  # text that can't be encoded: the sender's fault
                    sending.error = error
                finally:
                    sending.done.set()

    async def _watch(self, connection: WebSocketConnection, nursery: trio.Nursery) -> None:
        """Ping; a peer from which nothing at all comes for the ping timeout is gone.

        While we ourselves hold up the peer (full inbox), its pong can't arrive and silence means nothing.
        """
        while not self.ended.is_set():
            await trio.sleep(self._settings.ping_interval)
            pinged_at = trio.current_time()
            answered = trio.Event()
            nursery.start_soon(_ping, connection, answered)
            while not answered.is_set():
                now = trio.current_time()
                sign = now if self._stalled else max(pinged_at, self._stream.received_at)
                if now >= sign + self._settings.ping_timeout:
                    silence = f"the peer did not answer a ping for {self._settings.ping_timeout:.3g} s"
                    self._end(ServiceError(silence, type="network_error", reason="network_timeout"))
                    await trio.aclose_forcefully(self._stream)
                    return
                with trio.move_on_at(sign + self._settings.ping_timeout):
                    await answered.wait()

    def _end(self, failure: ServiceError | None) -> None:
        """Note why the connection ended; the first reason counts."""
        if not self.ended.is_set():
            self._failure = failure
            self.ended.set()


@asynccontextmanager
async def open_connection(
    url: str, settings: WebSocketSettings, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> AsyncIterator[Connection]:
    """Connect, and keep the connection while the block runs. Raises ServiceError, never in a group."""
    inner: BaseException | None = None
    connection: Connection | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.move_on_after(settings.handshake_timeout) as handshake:
                    connection = Connection(WatchedStream(await connect(url, tls)), settings)
                    nursery.start_soon(connection.run, *target(url), headers)
                    await connection.opened.wait()
                if handshake.cancelled_caught or connection is None:
                    late = f"no WebSocket within {settings.handshake_timeout:.3g} s"
                    raise ServiceError(late, type="network_error", reason="network_timeout")
                if (error := connection.error()) is not None:
                    raise error
                yield connection
            except BaseException as error:
                inner = error
                raise
            finally:
                if connection is not None:
                    await connection.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery has wrapped what the block raised: take it out, unless a task of ours has failed too.
        own = [] if inner is None else list(errors_in(inner))
        if inner is None or any(e not in own and not isinstance(e, trio.Cancelled) for e in errors_in(group)):
            raise
        _raise_as_it_was(inner)


def _raise_as_it_was(error: BaseException) -> None:
    """Raise ``error`` with the context it has, not with the one of this place."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


async def _ping(connection: WebSocketConnection, answered: trio.Event) -> None:
    try:
        await connection.ping()
    except ConnectionClosed:
        pass
    finally:
        answered.set()


def _rejection(group: BaseExceptionGroup[ConnectionRejected]) -> ServiceError:
    """The error for an upgrade that was answered with an error status."""
    rejected = next(errors_in(group))
    assert isinstance(rejected, ConnectionRejected)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in rejected.headers}
    error = describe_status(rejected.status_code, headers, bytes(rejected.body or b""))
    error.retry_after = parse_retry_after(headers, now=time.time())
    return error


def _closing(closed: ConnectionClosed, limit: int) -> ServiceError | None:
    """What a close means: None for the normal end."""
    code = closed.reason.code if closed.reason is not None else 1006
    if code in _NORMAL:
        return None
    type_, reason, retry = _CLOSES.get(code, ("service_error", "service_down", True))
    said = (closed.reason.reason if closed.reason is not None else None) or "no reason given"
    if code == 1006:
        text = "the connection was lost"
    elif code == 1009:
        text = f"a message was too large (max_message_bytes is {limit}): {said}"
    else:
        text = f"the service closed the socket with code {code}: {said}"
    return ServiceError(excerpt(text, 400), code=str(code), type=type_, reason=reason, retry=retry)
