"""``OpenAITextSimpleConnector``: chat completions in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, InvalidJob, Refused, ServiceError
from emp_trio.jobs import JobContext
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import cut, hang, open_faulty_server, reply
from emp_trio.testing.openai import FakeOpenAI, Script, ToolCall
from tests.services.openai.chat.support import completion, open_text
from tests.services.support import job, stored

PROMPT = {"prompt": "a tale"}


def simple_connector(openai: FakeOpenAI, connector_context: ConnectorContext, **settings: Any) -> Any:
    return open_text(OpenAITextSimpleConnector, openai.base_url, connector_context, api_key=openai.api_key, **settings)


async def test_a_prompt_becomes_text(openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path) -> None:
    openai.script = Script(text="Grüße")
    context = FakeAttempt()
    async with simple_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT), context)
    assert result.data["text"] == "Grüße"
    assert result.data["usage"]["output_tokens"] == 30
    assert result.metadata["attempts"] == 1
    assert result.service_metadata["request_ids"] == ["req_000001"]
    assert result.raw_request_payload == openai.requests[0].body
    assert "stream" not in openai.requests[0].body
    assert result.output_files == ()
    assert stored(tmp_path / "assets") == {}
    assert [report.value for report in context.reports] == [5, 90, 100]
    assert openai.billed == 1


async def test_text_is_stored_where_the_job_asks_for_it(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(text="Grüße")
    async with simple_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"save_output": True}))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert (content.decode(), name[-4:]) == ("Grüße", ".txt")
    assert result.data["saved_asset"]["fileName"] == result.output_files[0].filename == name
    assert result.metadata["saved_asset"] == result.data["saved_asset"]
    assert result.data["mime_type"] == "text/plain"
    assert result.data["text"] == "Grüße"


async def test_text_that_could_not_be_stored_is_not_paid_again(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(text="once only")
    payload = PROMPT | {"save_output": True}
    ctx = JobContext(prefix="blocked/by/a/file")
    blocked = tmp_path / "assets" / "blocked"
    async with simple_connector(openai, connector_context) as connector:
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_text("in the way")
        with pytest.raises(AssetError):
            await run_job(connector, job(payload, ctx=ctx))
        blocked.unlink()
        result = await run_job(connector, job(payload, ctx=ctx, attempt=2))
    assert result.data["text"] == "once only"
    assert result.service_metadata["request_ids"] == ["req_000001"]
    assert len(result.output_files) == 1
    assert (openai.count("chat"), openai.billed) == (1, 1)


async def test_a_job_whose_text_could_not_be_stored_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with simple_connector(openai, connector_context) as connector:
        with pytest.raises((AssetError, InvalidJob)):
            await run_job(connector, job(PROMPT | {"save_output": True}, ctx=JobContext(provider="nonsense")))
    assert openai.requests == []


async def test_an_answer_cut_off_at_its_limit_is_a_result_that_says_so(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(status="incomplete", text="Once upon a")
    async with simple_connector(openai, connector_context) as connector:
        result = await run_job(connector, job(PROMPT))
    assert (result.data["text"], result.data["truncated"]) == ("Once upon a", True)


async def test_tool_calls_without_words_store_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(tool_calls=[ToolCall(name="f")])
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with simple_connector(openai, connector_context) as connector:
        payload = PROMPT | {"tools": tools, "reasoning_effort": "none", "save_output": True}
        result = await run_job(connector, job(payload))
    assert result.data["tool_calls"][0]["function"]["name"] == "f"
    assert stored(tmp_path / "assets") == {}


@pytest.mark.parametrize(
    ("script", "quoted"),
    [
        (Script(refusal="I will not help with that."), "I will not help"),
        (Script(status="incomplete", incomplete_reason="content_filter", text="Onc"), "content filter"),
    ],
)
async def test_refusals(openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, quoted: str) -> None:
    openai.script = script
    async with simple_connector(openai, connector_context) as connector:
        with pytest.raises(Refused, match=quoted) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.retry, caught.value.request_id) == (False, "req_000001")
    assert openai.billed == 1


@pytest.mark.parametrize(
    ("status", "code", "calls", "kind"),
    [
        (400, "invalid_value", 1, "validation_error"),
        (401, "invalid_api_key", 1, "auth_error"),
        (429, "insufficient_quota", 1, "rate_limit"),
        (429, "rate_limit_exceeded", 4, "rate_limit"),
        (503, "server_is_overloaded", 4, "service_error"),
        (500, "server_error", 1, "service_error"),
    ],
)
async def test_errors(
    openai: FakeOpenAI, connector_context: ConnectorContext, status: int, code: str, calls: int, kind: str
) -> None:
    openai.inject("chat", status=status, code=code, times=9)
    async with simple_connector(openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.status, caught.value.type, openai.count("chat")) == (status, kind, calls)
    assert caught.value.request_id == f"req_{calls:06d}"
    assert openai.billed == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(200, json={"choices": []}, headers={"x-request-id": "req_7"}), "response_error"),
        (reply(200, b"<html>", content_type="text/html", headers={"x-request-id": "req_7"}), "response_error"),
        (reply(200, b"{half", content_type="application/json", headers={"x-request-id": "req_7"}), "response_error"),
        (cut(reply(200, json=completion("x" * 500), headers={"x-request-id": "req_7"}), 300), "network_error"),
    ],
)
async def test_an_answer_that_cannot_be_used_may_be_billed(
    connector_context: ConnectorContext, answer: Any, kind: str
) -> None:
    context = FakeAttempt()
    async with (
        open_faulty_server(answer) as faulty,
        open_text(OpenAITextSimpleConnector, faulty.url, connector_context) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT), context)
        assert len(faulty.requests) == 1
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == (kind, True, True)
    assert caught.value.request_id == "req_7"
    assert "req_7" in caught.value.message
    assert context.checkpoint == {"calls": 1}


async def test_a_cancel_closes_the_connection(connector_context: ConnectorContext) -> None:
    async with (
        open_faulty_server(hang()) as faulty,
        open_text(OpenAITextSimpleConnector, faulty.url, connector_context) as connector,
    ):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(PROMPT), FakeAttempt())
                await faulty.received(1)
                nursery.cancel_scope.cancel()
            await faulty.emptied()


async def test_a_deadline_ends_the_call(connector_context: ConnectorContext) -> None:
    context = FakeAttempt(0.3, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with (
        open_faulty_server(hang()) as faulty,
        open_text(OpenAITextSimpleConnector, faulty.url, connector_context) as connector,
    ):
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(PROMPT), context)
        with trio.fail_after(60):
            await faulty.emptied()


async def test_after_a_crash_the_answer_is_paid_again_and_the_result_says_so(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("chat", delay=3600)
    async with simple_connector(openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(PROMPT), FakeAttempt(stop_remote_work=False))
                await openai.until("chat")
                nursery.cancel_scope.cancel()
        result = await run_job(connector, job(PROMPT, attempt=2))
    assert result.metadata["attempts"] == 2
    assert openai.count("chat") == 2


async def test_models(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with simple_connector(openai, connector_context) as connector:
        assert "gpt-6-luna" in await connector.models()
