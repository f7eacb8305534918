"""How an attempt of ``OpenAITextConnector`` ends from outside, and what the next one makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import DeadlineExceeded, ServiceError
from emp_trio.protocols.limits import LimitsSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import event_stream, open_faulty_server
from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript
from tests.services.openai.chat.support import Listener, cut_short, frame, open_text
from tests.services.support import job

PROMPT = {"prompt": "a tale"}


def text_connector(openai: FakeOpenAI, connector_context: ConnectorContext, **settings: Any) -> Any:
    return open_text(OpenAITextConnector, openai.base_url, connector_context, api_key=openai.api_key, **settings)


async def test_a_cancel_closes_the_stream(connector_context: ConnectorContext) -> None:
    reporter = Listener()
    async with (
        open_faulty_server(event_stream(frame({"content": "some words"}), end=False)) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        await cut_short(connector, job(PROMPT), reporter)
        with trio.fail_after(60):
            await faulty.emptied()
    assert reporter.reports[-1].message == "some words"
    assert reporter.checkpoint is None


async def test_a_deadline_closes_the_stream(connector_context: ConnectorContext) -> None:
    context = FakeAttempt(0.4, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with (
        open_faulty_server(event_stream(frame({"content": "some"}), end=False)) as faulty,
        open_text(OpenAITextConnector, faulty.url, connector_context) as connector,
    ):
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(PROMPT), context)
        with trio.fail_after(60):
            await faulty.emptied()
    assert caught.value.stage == "service"


async def test_after_a_crash_the_answer_is_paid_again_and_the_result_says_so(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(text="a b c", stream=StreamScript(stall_after=3))
    reporter = Listener(stop_remote_work=False)
    async with text_connector(openai, connector_context) as connector:
        await cut_short(connector, job(PROMPT), reporter)
        openai.script = Script(text="a b c")
        result = await run_job(connector, job(PROMPT, attempt=2, checkpoint=reporter.checkpoint))
    assert result.metadata["attempts"] == 2
    assert openai.requests[1].headers["x-client-request-id"] == "job-1-2"
    assert openai.count("chat") == openai.billed == 2


async def test_a_call_that_may_have_run_is_repeated_by_one_attempt_only(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(stream=StreamScript(cut_after=2))
    async with text_connector(openai, connector_context) as connector:
        context = FakeAttempt()
        with pytest.raises(ServiceError) as first:
            await run_job(connector, job(PROMPT), context)
        assert first.value.retry
        with pytest.raises(ServiceError, match="second time that it may have run") as second:
            await run_job(connector, job(PROMPT, attempt=2, checkpoint=context.checkpoint), FakeAttempt())
        assert not second.value.retry
        openai.script = Script(text="at last")
        result = await run_job(connector, job(PROMPT, attempt=2, checkpoint=context.checkpoint))
        assert result.metadata["maybe_billed_before"] == 1
    assert openai.billed == 3


async def test_a_call_that_was_not_taken_up_leaves_no_doubt(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("chat", status=503, code="server_is_overloaded", times=9)
    context = FakeAttempt()
    async with text_connector(openai, connector_context, max_retries=0) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job(PROMPT), context)
    assert context.checkpoint is None


async def test_no_more_jobs_at_once_than_allowed(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(text="a b", seconds=0.1)
    began = trio.current_time()
    one = LimitsSettings(max_concurrent_jobs=1)
    async with text_connector(openai, connector_context, limits=one) as connector, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_job, connector, job(PROMPT))
    assert trio.current_time() - began >= 0.3
    assert openai.billed == 3
