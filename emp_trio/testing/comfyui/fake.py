"""Fake ComfyUI on a real socket, with the faults of real servers on demand (ComfyUI reference 9).

Some ways are its nature and need no switch: events race with answers, a reconnect hears only the running node's name,
an old socket's end silences the new one of the same client id, a graph with a node that lacks inputs ends the worker
thread, a restart forgets everything but files, file names are used again, one client that does not read stops all
others. :class:`~emp_trio.testing.comfyui.behavior.Behavior` and the methods here switch on the rest.
"""

from __future__ import annotations

import functools
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from emp_trio.nursery import open_background
from emp_trio.testing.comfyui.api import answer, route_of
from emp_trio.testing.comfyui.behavior import Behavior
from emp_trio.testing.comfyui.disk import Disk
from emp_trio.testing.comfyui.engine import Engine
from emp_trio.testing.comfyui.process import Process, refuse, upgrade
from emp_trio.testing.faulty_server import Answer, cut, reply
from emp_trio.testing.http11 import Received


class _Injection(msgspec.Struct, kw_only=True):
    answer: Answer | None
    delay: float
    after: bool
    times: int
    cut: int | None


class FakeComfyUI:
    """The server; made by :func:`open_fake_comfyui`.

    Attributes:
        port: where it listens; stays the same over restarts.
        behavior: how it behaves.
        base_path: a proxy's path in front of it.
        demands: headers without which everything is 401.
        disk: its files.
        requests: all requests so far.
        executions: how often each prompt id was started; outlives restarts.
    """

    def __init__(self, behavior: Behavior, host: str, tls: ssl.SSLContext | None) -> None:
        self.port = 0
        self.behavior = behavior
        self.base_path = ""
        self.demands: dict[str, str] = {}
        self.disk = Disk()
        self.requests: list[Received] = []
        self.executions: Counter[str] = Counter()
        self._host = host
        self._tls = tls
        self._process: Process | None = None
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self._injections: dict[str, list[_Injection]] = {}
        self._nursery: trio.Nursery | None = None
        self._news = trio.Event()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self.port}{self.base_path}"

    @property
    def engine(self) -> Engine:
        """The worker thread of the running server."""
        return self.process.engine

    @property
    def process(self) -> Process:
        """The running server."""
        assert self._process is not None, "the server is down"
        return self._process

    def count(self, route: str) -> int:
        """Requests of a route so far, for example ``POST /prompt``."""
        return len(self.of(route))

    def of(self, route: str) -> list[Received]:
        """Requests of a route so far."""
        return [request for request in self.requests if route_of(request) == route]

    async def until(self, wanted: Callable[[], object]) -> None:
        """Wait until something is so; looked at whenever something was asked or said."""
        while not wanted():
            await self._news.wait()

    def inject(
        self,
        route: str,
        status: int | None = None,
        body: bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "text/plain",
        delay: float = 0.0,
        after: bool = False,
        times: int = 1,
        cut: int | None = None,
    ) -> None:
        """Answer the next requests of a route in another way.

        Args:
            route: such as ``POST /prompt``, ``GET /history``, ``GET /ws``.
            status, body, headers, content_type: of the answer; without a status it is the usual one, only late or cut.
            delay: seconds before anything is done about the request; it is done though the client may have left.
            after: the request has its effect all the same.
            times: how many of them.
            cut: the connection ends after so many bytes of the answer.
        """
        made = None if status is None else reply(status, body, content_type=content_type, headers=headers)
        self._injections.setdefault(route, []).append(
            _Injection(answer=made, delay=delay, after=after, times=times, cut=cut)
        )

    async def start(self) -> None:
        """Start the server; it knows nothing of any prompt."""
        assert self._nursery is not None
        self.disk.sweep()
        self._process = Process(self.disk, self.behavior, self.executions, self._respond, self._tell)
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        self.port = await self._nursery.start(functools.partial(self._run, self._process))

    async def kill(self) -> None:
        """End the server without a word: sockets end without a close frame, connections are refused."""
        self._scope.cancel()
        await self._gone.wait()
        self._process = None

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.kill()
        await self.start()

    async def drop_sockets(self, *, close_frame: bool = False) -> None:
        """Lose every WebSocket; the server goes on."""
        await self.process.drop(close_frame=close_frame)

    def say(self, message: dict[str, Any] | bytes) -> None:
        """Send a message to every WebSocket."""
        self.process.say(None, message)

    def stranger(self, graph: dict[str, Any], prompt_id: str = "a-stranger", **more: Any) -> None:
        """Queue somebody else's prompt; without a ``client_id`` part of its messages go to everybody (4.9)."""
        outputs = tuple(key for key in graph if str(graph[key]["class_type"]).startswith(("Save", "Preview", "Rig")))
        self.engine.put({"prompt": graph} | more, prompt_id, outputs)

    async def _run(self, process: Process, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                await process.serve(self.port, self._host, self._tls, task_status=task_status)
        finally:
            self._gone.set()

    async def _respond(self, request: Received, engine: Engine) -> Answer:
        path = urlsplit(request.target).path
        if not path.startswith(self.base_path):
            return reply(404, "404: Not Found")
        target = request.target.removeprefix(self.base_path)
        if target.startswith("/api/") and not target.startswith("/api/jobs"):
            target = target.removeprefix("/api")
        request = msgspec.structs.replace(request, target=target)
        self.requests.append(request)
        self._tell()
        if any(request.headers.get(name) != value for name, value in self.demands.items()):
            return reply(401)
        if "origin" in request.headers:
            return reply(403)
        waiting = self._injections.get(route_of(request), [])
        injection = waiting[0] if waiting else None
        if injection is None:
            return await self._usual(request, engine)
        injection.times -= 1
        if injection.times <= 0:
            waiting.pop(0)
        await trio.sleep(injection.delay)
        made = injection.answer
        if made is None or injection.after:
            usual = await self._usual(request, engine)
            made = made or usual
        return made if injection.cut is None else cut(made, injection.cut)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _usual(self, request: Received, engine: Engine) -> Answer:
        if route_of(request) == "GET /ws":
            if "upgrade" not in request.headers:
                return reply(400, "No WebSocket UPGRADE hdr: None")
            return refuse if self.behavior.refuse_sockets else upgrade
        return await answer(engine, request)


@asynccontextmanager
async def open_fake_comfyui(
    port: int = 0, *, host: str = "127.0.0.1", behavior: Behavior | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeComfyUI]:
    """Serve a fake ComfyUI for the length of the block.

    Args:
        port: 0 for any free one.
        behavior: how it behaves.
        tls: a server's context, for https.

    Yields:
        the fake.
    """
    fake = FakeComfyUI(behavior or Behavior(), host, tls)
    fake.port = port
    async with open_background() as fake._nursery:
        await fake.start()
        yield fake
