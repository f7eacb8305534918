"""fastresponses, a server of the Open Responses API, in front of an agent of ours (the Python registry's)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.jobs import JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import run_job
from tests.others.servers import free_port, module, running
from tests.services.support import job

# Repeats what it is asked; "stop early" and "fail" end it as an agent may end.
AGENT = """
from fastresponses.adapter import AdapterError, AgentAdapter, Incomplete, ReasoningDelta, TextDelta, UsageDelta


def texts(items):
    for item in items:
        content = getattr(item, "content", "")
        yield content if isinstance(content, str) else "".join(getattr(part, "text", "") for part in content)


class Echo(AgentAdapter):
    name = "echo"
    default_model = "echo-1"

    async def run(self, run):
        asked = " ".join(texts(run.new_items))
        yield ReasoningDelta("thinking of it")
        for word in asked.split(" "):
            yield TextDelta(word + " ")
        if "stop early" in asked:
            yield Incomplete("max_output_tokens")
        if "fail" in asked:
            raise AdapterError("the agent has lost its thread", type="server_error", code="agent_error")
        yield UsageDelta(input_tokens=3, output_tokens=5, total_tokens=8)


echo = Echo()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command, folder = module("fastresponses.cli"), tmp_path_factory.mktemp("fastresponses")
    (folder / "agent.py").write_text(AGENT)
    command += ["serve", "agent.py:echo", "--port", str(port := free_port()), "--api-key", "sk-others-0123456789"]
    url = f"http://127.0.0.1:{port}"
    with running(command, url, folder):
        yield f"{url}/v1"


async def ask(server: str, connector_context: ConnectorContext, text: str, **payload: object) -> JobResult:
    settings = OpenAIResponsesConnector.Settings(
        openai=OpenAISettings(api_key=Secret("sk-others-0123456789")),
        http=HttpSettings(base_url=server, retry_delay=0.05),
        polling=PollingSettings(interval=0.1, attempts=200),
    )
    async with open_connector(OpenAIResponsesConnector, settings, connector_context) as connector:
        return await run_job(connector, job({"input": text, "model": "echo-1", **payload}))


async def test_a_background_response_is_followed_to_its_end(server: str, connector_context: ConnectorContext) -> None:
    result = await ask(server, connector_context, "a \N{CAT} on a mat")
    assert result.data["text"].strip() == "a \N{CAT} on a mat"


async def test_a_response_that_stops_early_keeps_its_text(server: str, connector_context: ConnectorContext) -> None:
    result = await ask(server, connector_context, "stop early please")
    assert result.data["text"].strip() == "stop early please"


async def test_a_response_that_fails_says_why(server: str, connector_context: ConnectorContext) -> None:
    with pytest.raises(ServiceError, match="lost its thread"):
        await ask(server, connector_context, "fail")
