"""How an attempt of ``OpenAITextConnector`` ends from outside, and what the next one makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from emp_trio.errors import DeadlineExceeded, ServiceError
from emp_trio.progress import StageLimits
from emp_trio.protocols.limits import LimitsSettings
from emp_trio.services.openai.text import OpenAITextConnector
from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript
from emp_trio.testing.reporter import FakeReporter, run_job
from emp_trio.testing.rogue import event_stream, open_rogue
from emp_trio.toolbox import Toolbox
from tests.services.openai.text_support import Listener, cut_short, frame, open_text
from tests.services.support import job

PROMPT = {"prompt": "a tale"}


def text_connector(openai: FakeOpenAI, toolbox: Toolbox, **settings: Any) -> Any:
    return open_text(OpenAITextConnector, openai.base_url, toolbox, api_key=openai.api_key, **settings)


async def test_a_cancel_closes_the_stream(toolbox: Toolbox) -> None:
    reporter = Listener()
    async with (
        open_rogue(event_stream(frame({"content": "some words"}), end=False)) as rogue,
        open_text(OpenAITextConnector, rogue.url, toolbox) as connector,
    ):
        await cut_short(connector, job(PROMPT), reporter)
        with trio.fail_after(60):
            await rogue.emptied()
    assert reporter.reports[-1].message == "some words"
    assert reporter.checkpoint is None


async def test_a_deadline_closes_the_stream(toolbox: Toolbox) -> None:
    reporter = FakeReporter(0.4, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with (
        open_rogue(event_stream(frame({"content": "some"}), end=False)) as rogue,
        open_text(OpenAITextConnector, rogue.url, toolbox) as connector,
    ):
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(PROMPT), reporter)
        with trio.fail_after(60):
            await rogue.emptied()
    assert caught.value.stage == "service"


async def test_after_a_crash_the_answer_is_paid_again_and_the_result_says_so(
    openai: FakeOpenAI, toolbox: Toolbox
) -> None:
    openai.script = Script(text="a b c", stream=StreamScript(stall_after=3))
    reporter = Listener(stop_upstream=False)
    async with text_connector(openai, toolbox) as connector:
        await cut_short(connector, job(PROMPT), reporter)
        openai.script = Script(text="a b c")
        result = await run_job(connector, job(PROMPT, attempt=2, checkpoint=reporter.checkpoint))
    assert result.metadata["attempts"] == 2
    assert openai.requests[1].headers["x-client-request-id"] == "job-1-2"
    assert openai.count("chat") == openai.billed == 2


async def test_a_call_that_may_have_run_is_repeated_by_one_attempt_only(openai: FakeOpenAI, toolbox: Toolbox) -> None:
    openai.script = Script(stream=StreamScript(cut_after=2))
    async with text_connector(openai, toolbox) as connector:
        reporter = FakeReporter()
        with pytest.raises(ServiceError) as first:
            await run_job(connector, job(PROMPT), reporter)
        assert first.value.retry
        with pytest.raises(ServiceError, match="second time that it may have run") as second:
            await run_job(connector, job(PROMPT, attempt=2, checkpoint=reporter.checkpoint), FakeReporter())
        assert not second.value.retry
        openai.script = Script(text="at last")
        result = await run_job(connector, job(PROMPT, attempt=2, checkpoint=reporter.checkpoint))
        assert result.metadata["maybe_billed_before"] == 1
    assert openai.billed == 3


async def test_a_call_that_was_not_taken_up_leaves_no_doubt(openai: FakeOpenAI, toolbox: Toolbox) -> None:
    openai.inject("chat", status=503, code="server_is_overloaded", times=9)
    reporter = FakeReporter()
    async with text_connector(openai, toolbox, max_retries=0) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job(PROMPT), reporter)
    assert reporter.checkpoint is None


async def test_no_more_jobs_at_once_than_allowed(openai: FakeOpenAI, toolbox: Toolbox) -> None:
    openai.script = Script(text="a b", seconds=0.1)
    began = trio.current_time()
    one = LimitsSettings(max_concurrent_jobs=1)
    async with text_connector(openai, toolbox, limits=one) as connector, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_job, connector, job(PROMPT))
    assert trio.current_time() - began >= 0.3
    assert openai.billed == 3
