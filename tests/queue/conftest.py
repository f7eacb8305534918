"""Fixtures of the queue's tests, all on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.verbs import Verbs
from emp_trio.secrets import Secret
from tests.queue.support import Ear, Library, listening


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
async def verbs(bridge: Bridge) -> Verbs:
    """The worker's verbs on an empty server."""
    await library.ensure(bridge)
    return Verbs(bridge)
