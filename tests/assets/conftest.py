"""A real blob service for the tests of this folder: one per test process, installed on first use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_trio.testing.azurite import Azurite, running_azurite

CACHE = Path(os.environ.get("EMP_TRIO_CACHE") or Path(__file__).parents[2] / ".cache")


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A running blob service."""
    with running_azurite(CACHE) as running:
        yield running


@pytest.fixture
def container(azurite: Azurite) -> str:
    """The name of a new container that anybody can read."""
    name = f"c{uuid.uuid4().hex[:12]}"
    azurite.create_container(name, public=True)
    return name
