"""A toolbox whose assets land in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_trio.toolbox import Toolbox
from tests.services.support import open_toolbox


@pytest.fixture
async def toolbox(tmp_path: Path) -> AsyncIterator[Toolbox]:
    async with open_toolbox(tmp_path / "assets") as toolbox:
        yield toolbox
