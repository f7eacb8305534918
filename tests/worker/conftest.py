"""Fixtures of the worker's tests, all on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.queue.support import Ear, listening
from tests.worker.support import client


@pytest.fixture
def db(valkey: str) -> Iterator[Any]:
    """A plain connection to the emptied server."""
    made = client(valkey)
    yield made
    made.close()


@pytest.fixture
def ear(valkey: str) -> Iterator[Ear]:
    """Hears everything that is published."""
    with listening(valkey) as made:
        yield made
