"""The fake Ollama. Every test that uses it also tests that nothing undocumented was asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emp_trio.testing.ollama import FakeOllama, open_fake_ollama


@pytest.fixture
async def ollama() -> AsyncIterator[FakeOllama]:
    """A fake server on a loopback socket."""
    async with open_fake_ollama() as ollama:
        yield ollama
        assert ollama.violations == []
