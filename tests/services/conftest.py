"""The toolbox of a worker, for the tests of connectors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_trio.toolbox import Toolbox
from tests.services.support import open_toolbox


@pytest.fixture
async def toolbox(tmp_path: Path) -> AsyncIterator[Toolbox]:
    """Assets go to ``tmp_path / "assets"``."""
    async with open_toolbox(tmp_path / "assets") as toolbox:
        yield toolbox
