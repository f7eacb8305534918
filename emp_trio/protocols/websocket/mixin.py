"""``WebSocket``: gives a connector a :class:`WebSocketClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from emp_trio.protocols.auth import Auth, NoAuth
from emp_trio.protocols.http.settings import HttpSettings
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.protocols.websocket.client import WebSocketClient
from emp_trio.protocols.websocket.settings import WebSocketSettings
from emp_trio.settings import find_part


class WebSocket(ConnectorPart):
    """Attaches ``self.websocket``, with the :class:`WebSocketSettings` among the connector's settings. Where these have
    :class:`HttpSettings` too, their ``verify_tls`` holds for both."""

    part_settings: ClassVar[PartSettings] = WebSocketSettings
    websocket: WebSocketClient

    def auth(self) -> Auth:
        """Hook: the connector's credentials, sent with the upgrade to the origin of the settings' URL."""
        return NoAuth()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts; no socket is opened yet."""
        http = find_part(self.settings, HttpSettings)
        self.websocket = WebSocketClient(
            self.settings_of(WebSocketSettings),
            user_agent=self.connector_context.user_agent,
            auth=self.auth,
            verify_tls=http is None or http.verify_tls,
        )
        yield
