"""What each test here begins with: a server with data of its own, and a seed from which it draws."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.rows import Row
from tests.chaos.server import Server, open_server
from tests.worker.support import HEAVY


@pytest.fixture
def rng() -> random.Random:
    """By chance from EMP_TRIO_SEED, which is another one in each long run; a failing test shows what it was."""
    seed = int(os.environ.get("EMP_TRIO_SEED") or (random.SystemRandom().randrange(10**6) if HEAVY else 1))
    print(f"EMP_TRIO_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def row() -> Row:
    """The row of this test in the table."""
    return Row()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with an append-only file in its default way: synced once a second."""
    async with open_server(tmp_path / "server") as made:
        yield made
