"""The fake Gemini. Every test that uses it also tests that nothing undocumented was asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emp_trio.testing.gemini import FakeGemini, open_fake_gemini


@pytest.fixture
async def gemini() -> AsyncIterator[FakeGemini]:
    """A fake of the API on a loopback socket."""
    async with open_fake_gemini() as gemini:
        yield gemini
        assert gemini.violations == []
