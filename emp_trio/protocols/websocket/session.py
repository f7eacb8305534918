"""``WebSocket``: sockets to a service, each with one reader, a watchdog and a bounded queue of messages."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, ServiceError
from emp_trio.protocols.auth import Auth, NoAuth, auth_headers, auth_secrets
from emp_trio.protocols.urls import origin, shown_url
from emp_trio.protocols.websocket.settings import WebSocketSettings
from emp_trio.secrets import Redactor, held
from emp_trio.tls import tls_context

if TYPE_CHECKING:
    from emp_trio.protocols.websocket.connection import Link


class Socket:
    """An open WebSocket, good inside the block of ``open_socket``; any task there may send, one at a time reads."""

    def __init__(self, link: Link, explain: Callable[[ServiceError], ServiceError]) -> None:
        self._link = link
        self._explain = explain

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent; messages that came before may still be read."""
        return self._link.ended.is_set()

    async def send(self, message: str | bytes) -> None:
        """Send a text or a binary message.

        Raises:
            ServiceError: the socket is closed or was lost before the message was on the wire.

        A cancelled send may still go out, whole.
        """
        from emp_trio.protocols.websocket.connection import Sending

        sending = Sending(message)
        try:
            await self._link.outbox.send(sending)
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
            return await self._link.inbox.receive()
        except trio.EndOfChannel:
            raise self._lost() from None

    def messages(self) -> AsyncIterator[str | bytes]:
        """The messages as they come, until the service closes the socket normally.

        Iterating raises ServiceError where the socket ends in another way.
        """
        return self

    def __aiter__(self) -> Socket:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message."""
        try:
            return await self._link.inbox.receive()
        except trio.EndOfChannel:
            if (error := self._link.error()) is not None:
                raise self._explain(error) from None
            raise StopAsyncIteration from None

    def _lost(self) -> ServiceError:
        closed = ServiceError("the service closed the socket", type="network_error", reason="connection_failed")
        return self._explain(self._link.error() or closed)


class WebSocket:
    """Gives a connector the verb ``open_socket``, with :class:`WebSocketSettings` in ``self.settings.websocket``."""

    settings: Any
    connector_context: ConnectorContext

    def auth(self) -> Auth:
        """Hook: the connector's credentials, sent with the upgrade to the origin of ``settings.websocket.url``."""
        return NoAuth()

    @asynccontextmanager
    async def open_socket(
        self, url: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Socket]:
        """Open a socket for the block.

        Args:
            url: instead of the settings'; gets the credentials only on the same origin.
            headers: sent with the upgrade.

        Raises:
            ServiceError: no connection, no TLS, the upgrade was refused (``status``) or did not come in time. Not in a
                group; what the block raises passes through as it is.
            ConfigError: not a ws or wss URL.

        When the block ends, also by a cancel, the closing handshake gets ``close_timeout``, so that what was sent last
        arrives; then the connection is closed. A peer that is gone is noticed by pings, whoever is reading or not.
        """
        from emp_trio.protocols.websocket.connection import open_link  # costs more than all of --help may

        settings: WebSocketSettings = self.settings.websocket
        target = settings.url if url is None else url
        try:
            scheme, own = origin(target)[0], origin(target) == origin(settings.url)
        except ValueError as error:
            raise ConfigError(f"{shown_url(target)!r} is not a ws or wss URL") from error
        if scheme not in ("ws", "wss"):
            raise ConfigError(f"{shown_url(target)!r} is not a ws or wss URL")
        auth = self.auth() if own else NoAuth()
        sent = {"user-agent": self.connector_context.user_agent, **auth_headers(auth), **(headers or {})}
        redactor = Redactor(auth_secrets(auth))

        def explain(error: ServiceError) -> ServiceError:
            error.message = redactor.text(f"{shown_url(target)}: {error.message}")
            error.args = (error.message,)
            return error

        inside = False
        try:
            tls = self._tls_context() if scheme == "wss" else None
            with held(*auth_secrets(auth)):
                async with open_link(target, settings, sent, tls) as link:
                    inside = True
                    yield Socket(link, explain)
        except ServiceError as error:
            if not inside:
                explain(error)
            raise

    def _tls_context(self) -> ssl.SSLContext:
        """The authorities of the system, or none where the connector's HTTP settings say ``verify_tls``."""
        return tls_context(verify=getattr(getattr(self.settings, "http", None), "verify_tls", True))
