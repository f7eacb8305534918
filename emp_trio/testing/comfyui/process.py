"""The process of the fake ComfyUI: its connections and sockets. What is in here does not outlive a restart."""

from __future__ import annotations

import functools
import json
import ssl
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from emp_trio.testing.comfyui.behavior import Behavior
from emp_trio.testing.comfyui.disk import Disk
from emp_trio.testing.comfyui.engine import Engine
from emp_trio.testing.faulty_server import Answer, Exchange, reply
from emp_trio.testing.faulty_websocket import Peer
from emp_trio.testing.http11 import Cut, Received, read_request

_LOST: Final = (Cut, trio.BrokenResourceError, trio.ClosedResourceError, LocalProtocolError, RemoteProtocolError)


class Process:
    """A run of the server.

    Attributes:
        engine: its worker thread.
        sockets: the socket registered under each client id.
        opened: how many sockets have been opened.
    """

    def __init__(
        self,
        disk: Disk,
        behavior: Behavior,
        executions: Counter[str],
        respond: Callable[[Received, Engine], Awaitable[Answer]],
        changed: Callable[[], None],
    ) -> None:
        self.engine = Engine(disk, behavior, executions, self.say)
        self.sockets: dict[str, Peer] = {}
        self.opened = 0
        self._manner = behavior
        self._respond = respond
        self._changed = changed
        self._streams: dict[trio.abc.Stream, trio.CancelScope | None] = {}
        self._say, self._said = trio.open_memory_channel[tuple[str | None, str | bytes]](100_000)

    async def serve(
        self,
        port: int,
        host: str,
        tls: ssl.SSLContext | None,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run until cancelled; reports the port it got. At the end every connection is gone, without a word."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.engine.work)
                nursery.start_soon(self._send)
                task_status.started(listeners[0].socket.getsockname()[1])
                connection = functools.partial(self._connection, tls=tls)
                await trio.serve_listeners(connection, listeners, handler_nursery=nursery)
        finally:
            for stream in list(self._streams):
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

    def say(self, sid: str | None, message: dict[str, Any] | bytes) -> None:
        """Send a message to one client id, or to everybody."""
        self._changed()
        if not self._manner.mute:
            wire = message if isinstance(message, bytes) else json.dumps(message)
            self._say.send_nowait((sid, wire))

    @property
    def unsent(self) -> int:
        """Messages that some socket has not taken yet."""
        return self._said.statistics().current_buffer_used

    async def drop(self, *, close_frame: bool) -> None:
        """Lose every socket."""
        for stream, reading in list(self._streams.items()):
            if reading is not None and close_frame:
                reading.cancel()
            elif reading is not None:
                await trio.aclose_forcefully(stream)

    async def _send(self) -> None:
        """One loop for all sockets, which waits for each: a client that does not read stops all others (4.7)."""
        async for sid, message in self._said:
            for key, peer in list(self.sockets.items()):
                if sid is None or key == sid:
                    with suppress(*_LOST):
                        await peer.send(message)
            self._changed()

    async def _connection(self, stream: trio.abc.Stream, *, tls: ssl.SSLContext | None) -> None:
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        self._streams[stream] = None
        try:
            rest = b""
            while True:
                request, rest = await read_request(stream, rest)
                exchange = Exchange(request, stream)
                answer = await self._respond(request, self.engine)
                if answer is upgrade:
                    await self._socket(exchange)
                await answer(exchange)
        except _LOST:
            pass
        finally:
            del self._streams[stream]
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _socket(self, exchange: Exchange) -> None:
        """Serve a WebSocket to its end, which is raised."""
        peer = Peer(exchange)
        query = parse_qs(urlsplit(exchange.request.target).query)
        sid = query.get("clientId", [uuid.uuid4().hex])[0]
        await peer.accept()
        reading = self._streams[exchange.stream] = trio.CancelScope()
        self.sockets[sid] = peer
        self.opened += 1
        self._changed()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._greet, sid, peer)
                with reading:
                    await self._listen(sid, peer)
                await peer.close(1001)
        except BaseExceptionGroup as group:
            if group.subgroup(trio.Cancelled) is not None:
                raise
            raise Cut from None
        finally:
            self.sockets.pop(sid, None)  # whichever socket that is by now: the trap of 4.4
            self._changed()

    async def _listen(self, sid: str, peer: Peer) -> None:
        first = await peer.receive()
        with suppress(msgspec.DecodeError, TypeError, KeyError):
            message = msgspec.json.decode(first)
            if message["type"] == "feature_flags":
                self.engine.flags[sid] = message["data"]
                self.say(sid, {"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        await peer.listen()

    async def _greet(self, sid: str, peer: Peer) -> None:
        running, node = self.engine.running, self.engine.node
        await trio.sleep(self._manner.late_status)
        status = {"status": {"exec_info": {"queue_remaining": self.engine.remaining}}, "sid": sid}
        self.say(sid, {"type": "status", "data": status})
        if running is not None and running.extra_data.get("client_id") == sid and node is not None:
            self.say(sid, {"type": "executing", "data": {"node": node}})


async def upgrade(exchange: Exchange) -> None:
    """The answer that means: become a WebSocket."""
    raise Cut


async def refuse(exchange: Exchange) -> None:
    """The answer to a WebSocket that is not wanted."""
    await reply(503)(exchange)
    raise Cut
