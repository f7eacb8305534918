"""Real stores for the tests of this folder: one of each per test process, Azurite installed on first use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from emp_trio.testing.azurite import Azurite, running_azurite
from emp_trio.testing.s3 import S3, running_s3
from tests.assets.backends import Backend, open_backend


@pytest.fixture(scope="session")
def azurite(azurite_cache: Path) -> Iterator[Azurite]:
    """A running blob service."""
    with running_azurite(azurite_cache) as running:
        yield running


@pytest.fixture
def container(azurite: Azurite) -> str:
    """The name of a new container that anybody can read."""
    name = f"c{uuid.uuid4().hex[:12]}"
    azurite.create_container(name, public=True)
    return name


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A running S3."""
    with running_s3() as running:
        yield running


OpenStore = Callable[[], AbstractAsyncContextManager[Backend]]


@pytest.fixture(params=["azure", "s3", "gcs", "local"])
def open_any(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one store after the other."""
    return _opener(request, tmp_path)


@pytest.fixture(params=["azure", "s3", "gcs"])
def open_remote(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens one store after the other, of those behind a network."""
    return _opener(request, tmp_path)


def _opener(request: pytest.FixtureRequest, folder: Path) -> OpenStore:
    names = {"azure": "azurite", "s3": "s3"}
    running = request.getfixturevalue(names[request.param]) if request.param in names else None
    return lambda: open_backend(request.param, folder, running)
