"""The fake A1111. Every test that uses it also tests that nothing was asked of it that a good client does not ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emp_trio.testing.a1111 import FakeA1111, open_fake_a1111


@pytest.fixture
async def a1111() -> AsyncIterator[FakeA1111]:
    """A fake server on a loopback socket."""
    async with open_fake_a1111() as a1111:
        yield a1111
        assert a1111.violations == []
