"""Fixtures of the queue's tests, all on a real server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
import trio

from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Secret
from tests.queue.support import TLS, Ear, Library, listening


@pytest.fixture
def lib(valkey: str) -> Iterator[Library]:
    """The function library on an empty server."""
    made = Library(valkey)
    yield made
    made.db.close()


@pytest.fixture
def ear(valkey: str) -> Iterator[Ear]:
    """Hears everything that is published."""
    with listening(valkey) as made:
        yield made


@pytest.fixture
async def bridge(valkey: str) -> AsyncIterator[Bridge]:
    """A connected bridge to an empty server."""
    async with open_bridge(RedisSettings(url=Secret(valkey))) as made:
        yield made


@pytest.fixture
async def worker_queue(bridge: Bridge) -> WorkerQueue:
    """The worker's queue on an empty server."""
    await library.ensure(bridge)
    return WorkerQueue(bridge)


@pytest.fixture
async def tls_port(valkey: str, nursery: trio.Nursery) -> int:
    """Port of TLS in front of the empty server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "server.pem")
    upstream = int(valkey.rpartition(":")[2])

    async def pump(source: Any, target: Any) -> None:
        async for data in source:
            await target.send_all(data)

    async def serve(raw: trio.SocketStream) -> None:
        client = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
        try:
            async with client, await trio.open_tcp_stream("127.0.0.1", upstream) as server, trio.open_nursery() as both:
                both.start_soon(pump, client, server)
                await pump(server, client)
                both.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went, or did not trust us

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return int(listeners[0].socket.getsockname()[1])
