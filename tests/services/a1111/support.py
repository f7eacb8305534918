"""The A1111 connector, opened with intervals and time limits that suit a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from emp_trio.connector_context import ConnectorContext
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.limits import LimitsSettings
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.services.a1111.settings import A1111Settings
from emp_trio.services.connector import open_connector
from emp_trio.testing.a1111 import FakeA1111, Script

PROMPT = {"prompt": "a lighthouse"}
GENERATE = "/sdapi/v1/txt2img"
HELD = Script(hold_at=2)  # in the middle: an image has four steps


@asynccontextmanager
async def open_a1111(
    base_url: str,
    connector_context: ConnectorContext,
    *,
    http: dict[str, Any] | None = None,
    limit: int = 1,
    **settings: Any,
) -> AsyncIterator[A1111WebSocketConnector]:
    """Open the connector for ``base_url``. Keywords go to ``A1111Settings``, ``http`` to ``HttpSettings``."""
    usual: dict[str, Any] = {"progress_interval": 0.01, "interrupt_interval": 0.02, "call_timeout": 5.0}
    reach: dict[str, Any] = {"base_url": base_url, "retry_delay": 0.01}
    made = A1111WebSocketConnector.Settings(
        a1111=A1111Settings(**(usual | settings)),
        http=HttpSettings(**(reach | (http or {}))),
        limits=LimitsSettings(max_concurrent_jobs=limit),
        fetch=FetchSettings(input_allow_private=True),
    )
    async with open_connector(A1111WebSocketConnector, made, connector_context) as connector:
        yield connector


def held(a1111: FakeA1111, number: int = 0) -> bool:
    """Whether a generation stands still in the middle."""
    return len(a1111.work) > number and a1111.work[number].step == HELD.hold_at
