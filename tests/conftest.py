"""Fixtures for everybody: one real server per test process, emptied before each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A slow or busy machine must not turn a property red: no limit on one example's time, none on making examples.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """URL of a real server of this test process's own; one per pytest-xdist worker. Nothing empties it."""
    from emp_trio.testing.valkey import valkey_server

    with valkey_server() as url:
        yield url


@pytest.fixture
def valkey(valkey_url: str) -> str:
    """URL of the server of :func:`valkey_url`, without any data or function."""
    import redis

    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        client.function_flush()
    return valkey_url
