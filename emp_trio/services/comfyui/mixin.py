"""``ComfyUI``: what every connector of ComfyUI has in common: credentials, errors, health, and one server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar, Final

import trio

from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.nursery import open_background
from emp_trio.protocols.auth import Auth
from emp_trio.protocols.http import Http, HttpClient
from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.protocols.websocket import WebSocket, WebSocketClient, WebSocketSettings
from emp_trio.services.address import auth_of
from emp_trio.services.comfyui.errors import describe_error
from emp_trio.services.comfyui.server import ComfyUIServer
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.connector import Health
from emp_trio.services.previews import PreviewSettings

_ANY: Final = "comfyui-default"


class ComfyUI(ConnectorPart):
    """Stands before ``Http`` and ``WebSocket`` among a connector's bases, with the :class:`ComfyUISettings` and the
    :class:`PreviewSettings` among its settings; attaches ``self.server``."""

    part_settings: ClassVar[PartSettings] = ComfyUISettings
    requires = (Http, WebSocket)
    http: HttpClient
    websocket: WebSocketClient
    server: ComfyUIServer

    def auth(self) -> Auth:
        """The server's credentials."""
        return auth_of(self.settings_of(ComfyUISettings))

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Refused graphs in ComfyUI's own words."""
        return describe_error(status, headers, body)

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Keep the socket open and the server under observation while the connector is open."""
        self.server = ComfyUIServer(
            self.http,
            self.websocket,
            self.settings_of(ComfyUISettings),
            socket_url=self.settings_of(WebSocketSettings).url,
            previews=self.settings_of(PreviewSettings).previews,
        )
        async with open_background() as nursery:
            self.server.start(nursery)
            yield

    async def health(self) -> Health:
        """Whether the server answers, and has shown that it works."""
        await trio.lowlevel.checkpoint()
        if self.server.probe.suspicion:
            return Health(healthy=False, detail=self.server.probe.suspicion)
        try:
            await self.server.calls.remaining()
        except EmpTrioError as error:
            return Health(healthy=False, detail=error.message)
        trouble = await self.server.probe.verdict()
        return Health(healthy=not trouble, detail=trouble)

    async def health_changes(self) -> None:
        """Come back when the server has become suspect, or is no more."""
        await self.server.probe.changes()

    async def models(self) -> list[str]:
        """The fleet's name for any ComfyUI (connector reference 5.1), and the checkpoints of this one."""
        try:
            return [_ANY, *await self.server.calls.checkpoints()]
        except ServiceError as error:
            if error.status != 404:
                raise
            return [_ANY]  # an older server does not tell
