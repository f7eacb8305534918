"""The service that the REST connectors are configured for. Every test also tests that it was asked nothing unknown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emp_trio.testing.fake_service import open_fake_service
from tests.services.rest.support import Studio


@pytest.fixture
async def studio() -> AsyncIterator[Studio]:
    """A studio on a loopback socket."""
    async with open_fake_service(Studio()) as studio:
        yield studio
        assert studio.violations == []
