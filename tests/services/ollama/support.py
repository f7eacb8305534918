"""The Ollama connector, opened with time limits that suit a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.limits import LimitsSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.ollama.connector import OllamaConnector
from emp_trio.services.ollama.settings import OllamaSettings


@asynccontextmanager
async def open_ollama(
    base_url: str,
    connector_context: ConnectorContext,
    *,
    http: dict[str, Any] | None = None,
    limit: int | None = None,
    **settings: Any,
) -> AsyncIterator[OllamaConnector]:
    """Open the connector for ``base_url``. Keywords go to ``OllamaSettings``, ``http`` to ``HttpSettings``."""
    usual: dict[str, Any] = {"base_url": base_url, "retry_delay": 0.01, "timeout": 20.0}
    made = OllamaConnector.Settings(
        ollama=OllamaSettings(**settings),
        http=HttpSettings(**(usual | (http or {}))),
        limits=LimitsSettings(max_concurrent_jobs=limit),
        fetch=FetchSettings(input_allow_private=True),
    )
    async with open_connector(OllamaConnector, made, connector_context) as connector:
        yield connector


def job(type: str, payload: dict[str, Any] | None = None, **fields: Any) -> Job:
    """An attempt of a job of that type."""
    return Job(id="job-1", type=type, payload=payload or {}, **fields)
