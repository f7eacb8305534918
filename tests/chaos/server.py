"""A real server that a test may kill, freeze and start again on the same data, and what is heard of it meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic

import redis

from emp_trio.queue.embedded import EmbeddedServer, open_embedded_server
from tests.worker.support import client

_LOOK = 0.1  # seconds after which the listener looks whether it is to stop


class Server:
    """A server with an append-only file; made by :func:`open_server`.

    Attributes:
        url: its address, the same after each start.
    """

    def __init__(self, folder: Path, fsync: str) -> None:
        self.url = ""
        self._folder = folder
        self._fsync = fsync
        self._port: int | None = None
        self._running: EmbeddedServer | None = None
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start it; returns when it answers and has read its data."""
        self._running = await self._stack.enter_async_context(open_embedded_server(self._folder, port=self._port))
        self.url, self._port = self._running.tcp_url, int(self._running.tcp_url.rpartition(":")[2])
        with client(self.url) as db:
            db.config_set("appendfsync", self._fsync)

    async def kill(self) -> None:
        """End it with SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        await self.close()

    async def close(self) -> None:
        """Let it end; returns when it is gone."""
        await self._stack.aclose()
        self._running = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._running is not None
        os.kill(self._running.pid, number)


@asynccontextmanager
async def open_server(folder: Path, *, fsync: str = "everysec") -> AsyncIterator[Server]:
    """A running :class:`Server` for the length of the block."""
    server = Server(folder, fsync)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class Listener:
    """Hears how jobs are claimed and how they end, from a thread of its own; made by :func:`listening`.

    Attributes:
        claims: of each job, when it was claimed (seconds of the monotonic clock) and by which worker.
        ends: of each job, the different messages about its end, and how often each came.
        gaps: how often its connection was lost: what was published then it has not heard.
    """

    def __init__(self, url: str) -> None:
        self.claims: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        self.ends: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.gaps = 0
        self.listens = threading.Event()
        self.stop = threading.Event()
        self._url = url

    def run(self) -> None:
        """Listen until ``stop`` is set; after a lost connection again as soon as there is a new one."""
        while not self.stop.is_set():
            try:
                self._listen()
            except redis.RedisError:
                self.gaps += self.listens.is_set()
                self.listens.clear()
                self.stop.wait(_LOOK / 10)

    def _listen(self) -> None:
        with client(self._url) as db, db.pubsub() as sub:
            sub.subscribe("job_claimed", "complete_job", "job_failed")
            while not self.stop.is_set():
                message = sub.get_message(timeout=_LOOK)
                self.listens.set()
                if message is not None and message["type"] == "message":
                    self._hear(message["channel"], message["data"])

    def _hear(self, channel: str, text: str) -> None:
        message = json.loads(text)
        if channel == "job_claimed":
            self.claims[message["job_id"]].append((monotonic(), message["worker_id"]))
        elif channel == "complete_job" or message.get("can_retry") is False:
            self.ends[message["job_id"]][text] += 1


@contextmanager
def listening(url: str) -> Iterator[Listener]:
    """A :class:`Listener` that hears everything from now on, for the length of the block."""
    listener = Listener(url)
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    assert listener.listens.wait(60)
    try:
        yield listener
    finally:
        listener.stop.set()
        thread.join()
