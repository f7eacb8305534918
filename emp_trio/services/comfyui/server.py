"""``ComfyUIServer``: a server as the jobs of a connector share it: its calls, one socket, evidence that it works."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import msgspec
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.http import HttpClient
from emp_trio.protocols.urls import join_url
from emp_trio.protocols.websocket import WebSocketClient, WebSocketSession
from emp_trio.services.comfyui.calls import Calls
from emp_trio.services.comfyui.classes import UNTOLD, NodeClass
from emp_trio.services.comfyui.messages import Ended, Event, Preview, decode, prompt_of
from emp_trio.services.comfyui.probe import Probe
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.shared_socket import Receiver, SharedSocket


class ComfyUIServer:
    """A server: the calls of its API, one socket for the messages of all prompts, and evidence that it works. The
    latter two are kept up by what :meth:`start` starts.

    Attributes:
        address: of its API.
        settings: how to treat it.
        calls: the calls of its API.
        probe: evidence of work.
        client_id: under which the socket that is open, or the next one, is known to the server.
    """

    def __init__(
        self,
        http: HttpClient,
        websocket: WebSocketClient,
        settings: ComfyUISettings,
        *,
        socket_url: str,
        previews: bool,
    ) -> None:
        self.address = http.settings.base_url
        self.settings = settings
        self.calls = Calls(http, settings)
        self.probe = Probe(self.calls, settings)
        self.client_id = str(uuid.uuid4())
        self._websocket = websocket
        self._socket_url = socket_url
        self._previews = previews
        self._shared: SharedSocket[Event | None, Event] = SharedSocket(
            self._open_socket, self._said, self._mine, delay=settings.reconnect_delay, cap=settings.reconnect_cap
        )
        self._classes: dict[str, NodeClass | None] = {}
        self._prompts: set[str] = set()
        self._speaks_of: str | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Keep the socket open and the server under observation, until the nursery is cancelled."""
        nursery.start_soon(self._shared.keep_open)
        nursery.start_soon(self.probe.run)

    @property
    def connected(self) -> bool:
        """Whether the socket of ``client_id`` is open."""
        return not self._shared.trouble

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
                retry_after=self.settings.cleanup_timeout,
            )
        self._prompts.add(prompt_id)
        try:
            with self._shared.receiving(prompt_id, receiver):
                yield
        finally:
            self._prompts.remove(prompt_id)

    def _said(self, message: str | bytes) -> Event | None:
        """What a message says; None of a preview that nobody wants."""
        return None if isinstance(message, bytes) and not self._previews else decode(message)

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

    def _open_socket(self) -> AbstractAsyncContextManager[WebSocketSession]:
        """A socket under a new id: where the server still has the old one, its end would silence the new one (4.4)."""
        self.client_id = str(uuid.uuid4())
        self._speaks_of = None
        return self._websocket.open(join_url(self._socket_url, "", {"clientId": self.client_id}))
