"""aimock, a server that speaks for many vendors (the npm registry's ``@copilotkit/aimock``)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import Refused
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.gemini.connector import GeminiConnector
from emp_trio.services.gemini.settings import HTTP, GeminiSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import run_job
from tests.others.servers import free_port, running, script
from tests.services.ollama.support import open_ollama
from tests.services.openai.chat.support import open_text
from tests.services.support import job

SAID = "Good morning \N{SUNRISE}, and a long answer that comes in pieces"
CALL = {"name": "paint", "arguments": {"colour": "blue"}}
FIXTURES = {
    "fixtures": [
        {"match": {"userMessage": "hello"}, "response": {"content": SAID}},
        {"match": {"userMessage": "tool"}, "response": {"toolCalls": [CALL, CALL | {"arguments": {"colour": "red"}}]}},
        {"match": {"userMessage": "cut short"}, "response": {"content": SAID, "finishReason": "length"}},
    ]
}


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, folder = script("@copilotkit/aimock", "dist/cli.js"), tmp_path_factory.mktemp("aimock")
    (folder / "fixtures.json").write_text(json.dumps(FIXTURES))
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running([*command, "--port", str(port), "--fixtures", "fixtures.json", "--chunk-size", "5"], url, folder):
        yield url


def asked(words: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": words}], "model": "gpt-6-luna"} | more


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat(aimock: str, connector_context: ConnectorContext, stream: bool) -> None:
    async with open_text(OpenAITextConnector, f"{aimock}/v1", connector_context) as connector:
        assert (await run_job(connector, job(asked("hello", stream=stream)))).data["text"] == SAID
        short = await run_job(connector, job(asked("cut short", stream=stream)))
        assert short.data["text"] == SAID
        called = await run_job(connector, job(asked("tool", stream=stream)))
    arguments = [json.loads(call["function"]["arguments"]) for call in called.data["tool_calls"]]
    assert arguments == [{"colour": "blue"}, {"colour": "red"}]


async def test_a_response(aimock: str, connector_context: ConnectorContext) -> None:
    settings = OpenAIResponsesConnector.Settings(
        openai=OpenAISettings(api_key=Secret("sk-any-0123456789")),
        http=HttpSettings(base_url=f"{aimock}/v1"),
        polling=PollingSettings(interval=0.1, attempts=100),
    )
    async with open_connector(OpenAIResponsesConnector, settings, connector_context) as connector:
        assert (await run_job(connector, job({"input": "hello", "model": "gpt-6-luna"}))).data["text"] == SAID


async def test_gemini_answers_in_words(aimock: str, connector_context: ConnectorContext) -> None:
    settings = GeminiConnector.Settings(
        gemini=GeminiSettings(api_key=Secret("any-key-0123456789"), api="generate_content"),
        http=msgspec.structs.replace(HTTP, base_url=aimock),
    )
    async with open_connector(GeminiConnector, settings, connector_context) as connector:
        with pytest.raises(Refused, match="in words instead of making an image: Good morning"):
            await run_job(connector, job({"prompt": "hello", "model": "gemini-3-flash"}))


async def test_ollama(aimock: str, connector_context: ConnectorContext) -> None:
    async with open_ollama(aimock, connector_context) as connector:
        chat = asked("hello", model="llama3")
        result = await run_job(connector, msgspec.structs.replace(job(chat), type="ollama"))
    assert result.data["text"] == SAID
