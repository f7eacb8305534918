"""steady, a server made of a vendor's own OpenAPI document (the npm registry's ``@stdy/cli``): every request that the
connectors send must fit the document. The document is not in a registry: name a copy of it in EMP_TRIO_TEST_OPENAPI."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.images.img2img import OpenAIImg2ImgConnector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import run_job
from emp_trio.testing.png import make_png
from tests.others.servers import free_port, running, script
from tests.services.openai.chat.support import open_text
from tests.services.support import job

IMAGE = base64.b64encode(make_png()).decode()
TOOL = {"type": "function", "function": {"name": "paint", "parameters": {"type": "object", "properties": {}}}}
REQUESTS: list[tuple[type[Any], dict[str, Any]]] = [
    (OpenAIResponsesConnector, {"input": "a cat"}),
    (
        OpenAIResponsesConnector,
        {"input": "a cat", "temperature": 0.5, "max_output_tokens": 99, "instructions": "Be brief"},
    ),
    (OpenAIText2ImgConnector, {"prompt": "a cat"}),
    (OpenAIText2ImgConnector, {"prompt": "a cat", "size": "1024x1536", "quality": "high", "background": "transparent"}),
    (OpenAIImg2ImgConnector, {"prompt": "a cat", "images": [IMAGE]}),
]


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, document = script("@stdy/cli", "steady.js"), os.environ.get("EMP_TRIO_TEST_OPENAPI")
    if not document:
        pytest.skip("EMP_TRIO_TEST_OPENAPI names no copy of OpenAI's OpenAPI document")
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-bodies", "--no-color"]
    folder = tmp_path_factory.mktemp("steady")
    with running([*command, *options, str(Path(document).absolute())], f"{url}/_x-steady/health", folder):
        yield url


def check(error: EmpTrioError) -> None:
    """An answer made of a schema need not be one that a connector can use; a request that is refused is a fault."""
    assert "400" not in error.message, error.message


@pytest.mark.parametrize(("cls", "payload"), REQUESTS)
async def test_requests_fit_the_document(
    steady: str, connector_context: ConnectorContext, cls: type[Any], payload: dict[str, Any]
) -> None:
    settings = cls.Settings(
        openai=OpenAISettings(api_key=Secret("sk-any-0123456789"), poll_timeout=1.0),
        http=HttpSettings(base_url=steady),
        polling=PollingSettings(interval=0.1, attempts=3),
    )
    async with open_connector(cls, settings, connector_context) as connector:
        try:
            await run_job(connector, job(payload))
        except EmpTrioError as error:
            check(error)


@pytest.mark.parametrize("stream", [True, False])
async def test_chats_fit_the_document(steady: str, connector_context: ConnectorContext, stream: bool) -> None:
    asked = {
        "messages": [{"role": "user", "content": "hello"}],
        "model": "gpt-6-luna",
        "tools": [TOOL],
        "max_tokens": 9,
    }
    async with open_text(OpenAITextConnector, steady, connector_context) as connector:
        try:
            await run_job(connector, job(asked | {"stream": stream, "frequency_penalty": 0.1, "user": "u1"}))
        except EmpTrioError as error:
            check(error)
