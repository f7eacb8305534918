"""A connector_context whose assets land in a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_trio.connector_context import ConnectorContext
from tests.services.support import open_toolbox


@pytest.fixture
async def connector_context(tmp_path: Path) -> AsyncIterator[ConnectorContext]:
    async with open_toolbox(tmp_path / "assets") as connector_context:
        yield connector_context
