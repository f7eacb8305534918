"""The Gemini connector, opened against the fake with intervals that suit a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.gemini.connector import GeminiConnector
from emp_trio.services.gemini.settings import HTTP, GeminiSettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.gemini import FakeGemini, Script
from tests.services.support import job

LONG = Script(seconds=3600)

forms = pytest.mark.parametrize("api", ["interactions", "generate_content"])
"""For what is the same in both."""


@asynccontextmanager
async def open_gemini(
    gemini: FakeGemini,
    connector_context: ConnectorContext,
    *,
    http: dict[str, Any] | None = None,
    looks: int = 10_000,
    **settings: Any,
) -> AsyncIterator[GeminiConnector]:
    """Open the connector against the fake. Keywords go to ``GeminiSettings``, ``http`` to ``HttpSettings``; ``looks``
    is how often an interaction is looked at."""
    reach = {"base_url": gemini.base_url, "retry_delay": 0.01, "verify_tls": False} | (http or {})
    made = GeminiConnector.Settings(
        gemini=GeminiSettings(**({"api_key": gemini.api_key} | settings)),
        http=msgspec.structs.replace(HTTP, **reach),
        polling=PollingSettings(interval=0.01, attempts=looks, errors_in_a_row=4),
        fetch=FetchSettings(input_allow_private=True),
    )
    async with open_connector(GeminiConnector, made, connector_context) as connector:
        yield connector


async def cut_short(connector: GeminiConnector, payload: dict[str, Any], context: FakeAttempt) -> None:
    """Run an attempt until its checkpoint is stored, then end it as its reporter says."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload), context)
            await context.until_remembered()
            nursery.cancel_scope.cancel()


def statuses(gemini: FakeGemini) -> list[str]:
    """The status of every generation, oldest first."""
    return [generation.status(trio.current_time()) for generation in gemini.generations.values()]
