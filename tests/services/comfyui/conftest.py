"""The fake ComfyUI, and a connector that is open to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.support import open_comfyui


@pytest.fixture
async def in_time() -> AsyncIterator[None]:
    """No test may hang."""
    with trio.fail_after(60):
        yield


@pytest.fixture
async def fake(in_time: None) -> AsyncIterator[FakeComfyUI]:
    """A server."""
    async with open_fake_comfyui() as fake:
        yield fake


@pytest.fixture
async def connector(fake: FakeComfyUI, connector_context: ConnectorContext) -> AsyncIterator[Any]:
    """A connector of it."""
    async with open_comfyui(fake, connector_context) as connector:
        yield connector
