"""The fake OpenAI. Every test that uses it also tests that nothing undocumented was asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emp_trio.testing.openai import FakeOpenAI, open_fake_openai


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    """A fake of the API on a loopback socket."""
    async with open_fake_openai() as openai:
        yield openai
        assert openai.violations == []
