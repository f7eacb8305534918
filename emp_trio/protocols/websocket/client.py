"""``WebSocketClient``: opens sockets to a service, each with one reader, a watchdog and a bounded queue of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from emp_trio.errors import ConfigError, ServiceError
from emp_trio.protocols.auth import Auth, NoAuth, auth_headers, auth_secrets
from emp_trio.protocols.urls import origin, shown_url
from emp_trio.protocols.websocket.session import WebSocketSession
from emp_trio.protocols.websocket.settings import WebSocketSettings
from emp_trio.secrets import Redactor, held
from emp_trio.tls import tls_context


class WebSocketClient:
    """Opens sockets to one service; keeps nothing between them.

    Args:
        settings: where it is, and the limits.
        user_agent: sent with each upgrade.
        auth: says the credentials, which go to the origin of the settings' URL only.
        verify_tls: False accepts any certificate.
    """

    def __init__(
        self,
        settings: WebSocketSettings,
        *,
        user_agent: str,
        auth: Callable[[], Auth] = NoAuth,
        verify_tls: bool = True,
    ) -> None:
        self._settings = settings
        self._user_agent = user_agent
        self._auth = auth
        self._verify_tls = verify_tls

    @asynccontextmanager
    async def open(
        self, url: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[WebSocketSession]:
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
        from emp_trio.protocols.websocket.connection import open_connection  # costs more than all of --help may

        settings = self._settings
        target = settings.url if url is None else url
        try:
            scheme, own = origin(target)[0], origin(target) == origin(settings.url)
        except ValueError as error:
            raise ConfigError(f"{shown_url(target)!r} is not a ws or wss URL") from error
        if scheme not in ("ws", "wss"):
            raise ConfigError(f"{shown_url(target)!r} is not a ws or wss URL")
        auth = self._auth() if own else NoAuth()
        sent = {"user-agent": self._user_agent, **auth_headers(auth), **(headers or {})}
        redactor = Redactor(auth_secrets(auth))

        def explain(error: ServiceError) -> ServiceError:
            error.message = redactor.text(f"{shown_url(target)}: {error.message}")
            error.args = (error.message,)
            return error

        inside = False
        try:
            tls = tls_context(verify=self._verify_tls) if scheme == "wss" else None
            with held(*auth_secrets(auth)):
                async with open_connection(target, settings, sent, tls) as connection:
                    inside = True
                    yield WebSocketSession(connection, explain)
        except ServiceError as error:
            if not inside:
                explain(error)
            raise
