"""The fake OpenAI, and a plain HTTP client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from emp_trio.testing.openai import FakeOpenAI, Script, open_fake_openai


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with open_fake_openai(script=Script(seconds=0)) as openai:
        yield openai


@pytest.fixture
async def client(openai: FakeOpenAI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {openai.api_key.reveal()}"}
    async with httpx.AsyncClient(base_url=openai.base_url, headers=headers, verify=False) as client:
        yield client
