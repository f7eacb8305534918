"""LLMock, a server that breaks calls on demand and judges the client (the Python registry's ``llmock``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import run_job
from tests.others.servers import free_port, module, running
from tests.services.openai.chat.support import open_text
from tests.services.support import job

CHAT = {"messages": [{"role": "user", "content": "hello"}], "model": "gpt-6-luna"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [*module("llmock.cli"), "serve", "--port", str(port)]
    command += ["--stream-chunk-delay-ms", "50"]  # time to notice a client that goes away
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/_llmock/scenario", tmp_path_factory.mktemp("llmock")):
        yield url


@pytest.fixture
def llmock(server: str) -> str:
    """The server without faults and memory of earlier calls."""
    httpx.post(f"{server}/_llmock/reset").raise_for_status()
    return server


def break_calls(server: str, **behavior: Any) -> None:
    httpx.post(f"{server}/_llmock/scenario", json={"behaviors": [behavior]}).raise_for_status()


def verdict(server: str) -> list[str]:
    """What it holds against the client."""
    found: dict[str, Any] = httpx.get(f"{server}/_llmock/verdict", timeout=30).raise_for_status().json()
    return [diagnostic["code"] for diagnostic in found["findings"]]


async def chat(server: str, connector_context: ConnectorContext, **more: Any) -> Any:
    async with open_text(OpenAITextConnector, f"{server}/v1", connector_context, retry_delay=0.2) as connector:
        return await run_job(connector, job(CHAT | more))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat(llmock: str, connector_context: ConnectorContext, stream: bool) -> None:
    break_calls(llmock, type="reply", text="Good morning \N{SUNRISE}")
    result = await chat(llmock, connector_context, stream=stream)
    assert result.data["text"] == "Good morning \N{SUNRISE}"
    assert verdict(llmock) == []


async def test_a_tool_call(llmock: str, connector_context: ConnectorContext) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]
    result = await chat(llmock, connector_context, tools=tools)
    assert [call["function"]["name"] for call in result.data["tool_calls"]] == ["get_weather"]
    assert verdict(llmock) == []


async def test_a_stated_wait_is_obeyed(llmock: str, connector_context: ConnectorContext) -> None:
    break_calls(llmock, type="fail", status=429, retry_after=1, times=2)
    assert (await chat(llmock, connector_context)).success
    assert verdict(llmock) == []


async def test_a_service_that_is_down_for_a_moment(llmock: str, connector_context: ConnectorContext) -> None:
    break_calls(llmock, type="fail", status=503, times=2)
    assert (await chat(llmock, connector_context)).success
    assert verdict(llmock) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_what_is_final_is_not_repeated(llmock: str, connector_context: ConnectorContext, status: int) -> None:
    break_calls(llmock, type="fail", status=status, times=None)
    with pytest.raises(ServiceError) as caught:
        await chat(llmock, connector_context)
    assert not caught.value.retry
    assert verdict(llmock) == []


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_broken_stream_is_no_answer_and_the_next_attempt_is(
    llmock: str, connector_context: ConnectorContext, kind: str
) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    break_calls(llmock, type="reply", text=text, times=2)
    break_calls(llmock, type="stream_fault", kind=kind, after_chunks=2)
    with pytest.raises(ServiceError) as caught:
        await chat(llmock, connector_context)
    assert (caught.value.retry, caught.value.maybe_started) == (True, True)
    verdict(llmock)  # is given when it knows of the call's end
    assert (await chat(llmock, connector_context)).data["text"] == text
    assert not {"truncated_stream_accepted", "malformed_chunk_ignored"} & set(verdict(llmock))


async def test_a_response(llmock: str, connector_context: ConnectorContext) -> None:
    settings = OpenAIResponsesConnector.Settings(
        openai=OpenAISettings(api_key=Secret("sk-any-0123456789")),
        http=HttpSettings(base_url=f"{llmock}/v1", retry_delay=0.2),
        polling=PollingSettings(interval=0.1, attempts=100),
    )
    break_calls(llmock, type="reply", text="A short answer")
    async with open_connector(OpenAIResponsesConnector, settings, connector_context) as connector:
        result = await run_job(connector, job({"input": "hello", "model": "gpt-6-luna"}))
    assert result.data["text"] == "A short answer"
    assert verdict(llmock) == []
