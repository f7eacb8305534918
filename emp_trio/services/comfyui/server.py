"""``ComfyUIServer``: what every connector of ComfyUI has in common: address, credentials, one socket, health."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final

import msgspec
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, ServiceError
from emp_trio.protocols.auth import Auth
from emp_trio.protocols.urls import join_url
from emp_trio.protocols.websocket import Socket
from emp_trio.services.address import auth_of
from emp_trio.services.comfyui.calls import Calls
from emp_trio.services.comfyui.classes import UNTOLD, NodeClass
from emp_trio.services.comfyui.errors import describe_error
from emp_trio.services.comfyui.messages import Ended, Event, Preview, decode, prompt_of
from emp_trio.services.comfyui.probe import Probe
from emp_trio.services.comfyui.settings import ComfyUISettings, located
from emp_trio.services.connector import Health
from emp_trio.services.shared_socket import Receiver, SharedSocket

_ANY: Final = "comfyui-default"


class ComfyUIServer:
    """Stands before ``Http`` and ``WebSocket`` among a connector's bases; its settings are ``self.settings.comfyui``.

    Attributes:
        calls: the calls of its API.
        probe: evidence of work.
        client_id: under which the socket that is open, or the next one, is known to the server.
    """

    settings: Any
    calls: Calls
    probe: Probe
    client_id: str

    def __init__(self, settings: Any, connector_context: ConnectorContext) -> None:
        super().__init__(located(settings), connector_context)  # type: ignore[call-arg]  # Connector's
        self._classes: dict[str, NodeClass | None] = {}
        self._prompts: set[str] = set()

    def auth(self) -> Auth:
        """The server's credentials."""
        return auth_of(self.settings.comfyui)

    def describe_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """Refused graphs in ComfyUI's own words."""
        return describe_error(status, headers, body)

    @asynccontextmanager
    async def opening(self: Any) -> AsyncIterator[None]:
        """Keep the socket open and the server under observation while the connector is open."""
        comfyui: ComfyUISettings = self.settings.comfyui
        self.client_id = str(uuid.uuid4())
        self.calls = Calls(self, comfyui)
        self.probe = Probe(self.calls, comfyui)
        self._shared = SharedSocket(
            self._open_socket, self._said, self._mine, delay=comfyui.reconnect_delay, cap=comfyui.reconnect_cap
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._shared.keep_open)
                nursery.start_soon(self.probe.run)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:  # the block's own error, which its caller knows
                raise group.exceptions[0] from None
            raise

    @property
    def connected(self) -> bool:
        """Whether the socket of ``client_id`` is open."""
        return not self._shared.trouble

    async def health(self) -> Health:
        """Whether the server answers, and has shown that it works."""
        await trio.lowlevel.checkpoint()
        if self.probe.suspicion:
            return Health(healthy=False, detail=self.probe.suspicion)
        try:
            await self.calls.remaining()
        except EmpTrioError as error:
            return Health(healthy=False, detail=error.message)
        trouble = await self.probe.verdict()
        return Health(healthy=not trouble, detail=trouble)

    async def health_changes(self) -> None:
        """Come back when the server has become suspect, or is no more."""
        await self.probe.changes()

    async def models(self) -> list[str]:
        """The fleet's name for any ComfyUI (connector reference 5.1), and the checkpoints of this one."""
        try:
            return [_ANY, *await self.calls.checkpoints()]
        except ServiceError as error:
            if error.status != 404:
                raise
            return [_ANY]  # an older server does not tell

    async def node_classes(self, names: Iterable[str], *, again: bool = False) -> dict[str, NodeClass | None]:
        """What the server says of node classes, asked for once.

        Args:
            names: of the classes.
            again: ask anew: models and node packs may have been added since.
        """
        wanted = set(names)
        asked = wanted if again else wanted - self._classes.keys()
        found = await self.calls.node_classes(sorted(asked))
        lacking = {name for name in found if found[name] is None}
        self._classes |= found | (await self._replaced(lacking) if lacking else {})
        return {name: self._classes[name] for name in wanted}

    async def _replaced(self, names: set[str]) -> dict[str, NodeClass | None]:
        """Classes that the server does not list and takes all the same, because it puts others in their place."""
        table = await self.calls.replacements()
        if table is None:
            return dict.fromkeys(names, UNTOLD)  # it is for the server to decide
        chosen = {name: table[name] for name in names if name in table}
        new = await self.calls.node_classes(sorted(set(chosen.values())))
        return {
            name: msgspec.structs.replace(there, inputs={}, replaced=True)
            for name, choice in chosen.items()
            if (there := new[choice]) is not None
        }

    @contextmanager
    def listening(self, prompt_id: str, receiver: Receiver[Event]) -> Iterator[None]:
        """Hand messages about a prompt to ``receiver`` inside the block.

        Raises:
            ServiceError: an earlier attempt of the same job is still being wound up here; worth a retry.
        """
        if prompt_id in self._prompts:
            raise ServiceError(
                "an earlier attempt of this job has not left this connector yet",
                type="resource_limit",
                reason="concurrent_limit",
                retry_after=self.settings.comfyui.cleanup_timeout,
            )
        self._prompts.add(prompt_id)
        try:
            with self._shared.receiving(prompt_id, receiver):
                yield
        finally:
            self._prompts.remove(prompt_id)

    _shared: SharedSocket[Event | None, Event]
    _speaks_of: str | None = None

    def _said(self, message: str | bytes) -> Event | None:
        """What a message says; None of a preview that nobody wants."""
        return None if isinstance(message, bytes) and not self.settings.preview.previews else decode(message)

    def _mine(self, event: Event | None) -> tuple[str | None, Event | None]:
        """An event as (its prompt, event); what names no prompt is of no interest (4.4), but for previews.

        Those belong to the prompt that was named last, which may be a stranger's (3.3, 4.9).
        """
        if event is None:
            self.probe.heard()
            return None, None
        prompt_id = prompt_of(event)
        if prompt_id is not None or isinstance(event, Preview):
            self.probe.heard()
        if isinstance(event, Preview):
            return prompt_id or self._speaks_of, event
        if prompt_id is not None:
            self._speaks_of = None if isinstance(event, Ended) else prompt_id
        return prompt_id, event if prompt_id is not None else None

    def _open_socket(self: Any) -> AbstractAsyncContextManager[Socket]:
        """A socket under a new id: where the server still has the old one, its end would silence the new one (4.4)."""
        self.client_id = str(uuid.uuid4())
        self._speaks_of = None
        return self.open_socket(join_url(self.settings.websocket.url, "", {"clientId": self.client_id}))  # type: ignore[no-any-return]
