"""The simulated WebSocket service behind ``emp-trio simulate websocket`` (connector reference 3.3).

All messages are JSON objects with a ``type``. One socket carries many jobs; when it closes, its jobs are cancelled.
"""

from __future__ import annotations

import base64
import functools
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
import wsproto.utilities
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_server_stream

from emp_trio.nursery import open_background
from emp_trio.testing.sim_core import Simulation, begin

_KEPT: Final = 10_000  # jobs remembered
_LARGEST_MESSAGE: Final = 64 * 1024 * 1024
_HANDSHAKE_SECONDS: Final = 10.0


class SimulatedWebsocketService:
    """A service that makes a small PNG per job.

    Args:
        default_seconds: how long a job takes when neither its payload nor the connector says.

    Attributes:
        url: where it is served (set by :func:`open_simulated_websocket`).
        jobs: the latest 10,000 jobs, oldest first.
        sockets: how many sockets have been opened.
    """

    def __init__(self, *, default_seconds: float = 1.0) -> None:
        self.url = ""
        self.default_seconds = default_seconds
        self.jobs: deque[Simulation] = deque(maxlen=_KEPT)
        self.sockets = 0
        self._numbers = itertools.count(1)
        self._changed = trio.Event()
        self._streams: set[trio.SocketStream] = set()

    async def serve(
        self, port: int, *, host: str, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept connections until cancelled; reports the port it got."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                functools.partial(trio.serve_tcp, self._connection, port, host=host, handler_nursery=nursery)
            )
            task_status.started(listeners[0].socket.getsockname()[1])

    def states(self) -> list[str]:
        """The state of every job, oldest first."""
        return [job.state(trio.current_time()) for job in self.jobs]

    async def drop_sockets(self) -> None:
        """Lose every open socket, without a closing handshake, as a crashed service does."""
        for stream in list(self._streams):
            await trio.aclose_forcefully(stream)

    async def until_started(self, jobs: int) -> None:
        """Wait until that many jobs have been started."""
        while len(self.jobs) < jobs:
            await self._changed.wait()

    async def until_cancelled(self, jobs: int) -> None:
        """Wait until that many jobs have been cancelled."""
        while self.states().count("cancelled") < jobs:
            await self._changed.wait()

    async def _connection(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; whatever is wrong with it ends nothing else."""
        self._streams.add(stream)
        mine: dict[str, Simulation] = {}
        try:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(_HANDSHAKE_SECONDS) as handshake:
                    request = await wrap_server_stream(nursery, stream, max_message_size=_LARGEST_MESSAGE)
                    socket = await request.accept()
                if not handshake.cancelled_caught:
                    self.sockets += 1
                    await self._converse(socket, mine, nursery)
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, HandshakeError, wsproto.utilities.ProtocolError):
            pass  # the peer's doing, and the end of the conversation
        finally:
            self._streams.discard(stream)
            for job in mine.values():
                job.cancel(trio.current_time())
            self._wake()
            await trio.aclose_forcefully(stream)

    async def _converse(self, socket: WebSocketConnection, mine: dict[str, Simulation], nursery: trio.Nursery) -> None:
        await _send(socket, {"type": "simulation_ready"})
        while True:
            for answer in self._answer(await socket.get_message(), mine, nursery, socket):
                await _send(socket, answer)

    def _answer(
        self, text: str | bytes, mine: dict[str, Simulation], nursery: trio.Nursery, socket: WebSocketConnection
    ) -> list[dict[str, Any]]:
        try:
            message = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            return [{"type": "error", "message": str(error)}]
        now = trio.current_time()
        job_id = message.get("job_id")
        match message.get("type"):
            case "simulation_job":
                try:
                    job = begin(
                        f"wsim-{next(self._numbers)}",
                        message,
                        config="config",
                        now=now,
                        default_seconds=self.default_seconds,
                    )
                except msgspec.ValidationError as error:
                    text = str(error)
                    return [{"type": "simulation_error", "job_id": job_id, "error": text, "retryable": False}]
                self.jobs.append(job)
                mine[job.job_id] = job
                nursery.start_soon(_play, job, message.get("payload") or {}, socket)
                self._wake()
                return []
            case "cancel_simulation":
                if (found := mine.get(str(job_id))) is not None:
                    found.cancel(now)
                    self._wake()
                return [{"type": "simulation_cancelled", "job_id": job_id, "message": "cancelled on request"}]
            case "query_status":
                state = mine[str(job_id)].state(now) if str(job_id) in mine else "unknown"
                return [{"type": "job_status", "job_id": job_id, "status": state}]
            case "list_jobs":
                return [{"type": "job_list", "jobs": list(mine)}]
            case "get_metrics":
                return [{"type": "simulation_metrics", "jobs": len(self.jobs), "sockets": self.sockets}]
            case "ping":
                return [{"type": "pong"}]
            case other:
                return [{"type": "error", "message": f"unknown message type {other!r}"}]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _play(job: Simulation, payload: dict[str, Any], socket: WebSocketConnection) -> None:
    """Send what a job has to say until it ends; says nothing more once it was cancelled."""
    await _send(socket, {"type": "simulation_started", "job_id": job.job_id, "simulation_id": job.id})
    while True:
        await trio.sleep_until(min(trio.current_time() + job.progress_interval, job.started + job.seconds))
        now = trio.current_time()
        if job.state(now) != "running":
            break
        await _send(
            socket,
            {
                "type": "simulation_progress",
                "job_id": job.job_id,
                "current_step": job.step(now),
                "total_steps": job.steps,
                "progress": 100 * job.step(now) / job.steps,
            },
        )
    if job.state(now) == "error":
        error = {"error": job.steering.fail, "retryable": job.steering.retryable}
        await _send(socket, {"type": "simulation_error", "job_id": job.job_id, **error})
    elif job.state(now) == "success":
        complete: dict[str, Any] = {
            "type": "simulation_complete",
            "job_id": job.job_id,
            "simulation_id": job.id,
            "results": job.results() | {"protocol": "websocket"},
            "output_url": None,
            "processing_time_ms": round(job.seconds * 1000),
        }
        if payload.get("save_assets"):
            data = base64.b64encode(job.image()).decode()
            complete["outputs"] = {"images": [{"mime_type": "image/png", "data": data}]}
        await _send(socket, complete)


@asynccontextmanager
async def open_simulated_websocket(
    port: int = 0, *, host: str = "127.0.0.1", default_seconds: float = 1.0
) -> AsyncIterator[SimulatedWebsocketService]:
    """Serve a simulated WebSocket service for the length of the block.

    Args:
        port: 0 for any free one.
        default_seconds: see :class:`SimulatedWebsocketService`.

    Yields:
        the service; its ``url`` (``ws://``) is where to find it.
    """
    service = SimulatedWebsocketService(default_seconds=default_seconds)
    async with open_background() as nursery:
        bound: int = await nursery.start(functools.partial(service.serve, port, host=host))
        service.url = f"ws://{host}:{bound}"
        yield service


async def _send(socket: WebSocketConnection, message: dict[str, Any]) -> None:
    await socket.send_message(msgspec.json.encode(message).decode())
