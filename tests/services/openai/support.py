"""Connectors of the OpenAI family, opened against the fake with intervals that suit a test."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.connector import Connector, open_connector
from emp_trio.services.openai.images.img2img import OpenAIImg2ImgConnector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.testing.png import make_png
from tests.services.support import job

LONG = Script(seconds=3600)

connectors = pytest.mark.parametrize("cls", [OpenAIResponsesConnector, OpenAIText2ImgConnector, OpenAIImg2ImgConnector])

_PAYLOADS: dict[type[Connector], dict[str, Any]] = {
    OpenAIResponsesConnector: {"input": "a cat"},
    OpenAIText2ImgConnector: {"prompt": "a cat"},
    OpenAIImg2ImgConnector: {"prompt": "a cat", "images": [base64.b64encode(make_png()).decode()]},
}


def payload_for(cls: type[Connector], **more: Any) -> dict[str, Any]:
    """The simplest payload for a connector."""
    return _PAYLOADS[cls] | more


@asynccontextmanager
async def open_openai(
    cls: type[Any],
    openai: FakeOpenAI,
    connector_context: ConnectorContext,
    *,
    http: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Any]:
    """Open ``cls`` against the fake. Keywords go to ``OpenAISettings``, ``http`` to ``HttpSettings``, ``own`` to the
    connector's own settings."""
    account = OpenAISettings(**({"api_key": openai.api_key} | settings))
    reached: dict[str, Any] = {"base_url": openai.base_url, "retry_delay": 0.01, "verify_tls": False}
    made = cls.Settings(
        openai=account,
        http=HttpSettings(**(reached | (http or {}))),
        **({"polling": PollingSettings(interval=0.01, attempts=10_000, errors_in_a_row=4)} | (own or {})),
    )
    async with open_connector(cls, made, connector_context) as connector:
        yield connector


async def cut_short(connector: Any, payload: dict[str, Any], context: FakeAttempt) -> None:
    """Run an attempt until its response is remembered, then end it as its reporter says."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload), context)
            await context.until_remembered()
            nursery.cancel_scope.cancel()


def broken(connector_context: ConnectorContext) -> ConnectorContext:
    """A connector_context whose storage is away."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(connector_context.assets, name)

        async def save(self, *args: Any, **options: Any) -> Any:
            raise AssetError("storage is away")

    return msgspec.structs.replace(connector_context, assets=Broken())


def statuses(openai: FakeOpenAI) -> list[str]:
    """The status of every response, oldest first."""
    return [generation.status(trio.current_time()) for generation in openai.generations.values()]
