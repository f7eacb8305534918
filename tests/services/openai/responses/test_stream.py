"""Streamed responses of both connectors against the fake API: followed, lost, resumed, polled, cancelled, adopted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import DeadlineExceeded, Refused, ServiceError
from emp_trio.protocols.http import HttpSettings
from emp_trio.secrets import Secret
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import OpenAISettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import event_stream, open_faulty_server
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.testing.openai.script import StreamScript
from tests.services.openai.support import broken, cut_short, open_openai, statuses
from tests.services.support import job, stored
from tests.testing.test_png import chunks

TEXT = {"input": "a cat", "stream": True}
IMAGE = {"prompt": "a cat", "approach": "streaming"}
streamed = pytest.mark.parametrize(
    ("cls", "payload"), [(OpenAIResponsesConnector, TEXT), (OpenAIText2ImgConnector, IMAGE)], ids=["text", "image"]
)
LONG = Script(seconds=3600)


def resumptions(openai: FakeOpenAI) -> int:
    """How often the stream was asked for again."""
    return sum(r.route == "retrieve" and r.headers["accept"] == "text/event-stream" for r in openai.requests)


def polls(openai: FakeOpenAI) -> int:
    """How often the response was looked at."""
    return openai.count("retrieve") - resumptions(openai)


# Followed to the end.


async def test_text_is_streamed_and_told_as_progress(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(text="Once upon a time there was a cat.")
    context = FakeAttempt()
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job(TEXT), context)
    assert openai.requests[0].body == result.raw_request_payload
    assert openai.requests[0].headers["accept"] == "text/event-stream"
    assert result.data["text"] == "Once upon a time there was a cat."
    assert result.data["usage"]["total_tokens"] == 50
    assert result.data["openai_response_id"] in openai.generations
    assert result.service_metadata["request_ids"][0].startswith("req_")
    assert [content.decode() for content in stored(tmp_path / "assets").values()] == [result.data["text"]]
    assert "33 characters" in [report.message for report in context.reports]
    assert (openai.count("create"), openai.count("retrieve"), openai.billed) == (1, 0, 1)


async def test_a_image_is_streamed_and_partial_ones_are_counted(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(image_bytes=20_000)
    context = FakeAttempt()
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job(IMAGE), context)
    (content,) = stored(tmp_path / "assets").values()
    assert len(content) == 20_000  # the fake's partial images are smaller
    assert b"IDAT" in chunks(content)
    assert result.data["approach"] == "streaming"
    messages = [report.message for report in context.reports]
    assert "partial image 1 of 2" in messages
    assert "partial image 2 of 2" in messages
    assert (openai.count("create"), openai.count("retrieve"), openai.billed) == (1, 0, 1)


@streamed
async def test_comments_keepalives_unknown_events_and_done_markers_do_no_harm(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(stream=StreamScript(noise=True, done_marker=True))
    async with open_openai(cls, openai, connector_context) as connector:
        assert (await run_job(connector, job(payload))).success
    assert openai.count("retrieve") == 0


@streamed
async def test_a_refusal_in_the_stream_is_one(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(status="failed", error={"code": "moderation_blocked", "message": "Not this."})
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(Refused, match="Not this"):
            await run_job(connector, job(payload))
    assert (openai.count("create"), openai.count("retrieve")) == (1, 0)


async def test_cut_off_text_of_a_stream_says_so(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(status="incomplete", text="Once upon a")
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        assert (await run_job(connector, job(TEXT))).data["truncated"] is True


# Lost.


@streamed
async def test_a_lost_stream_is_resumed_after_its_last_event(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(text="one two three", stream=StreamScript(cut_after=7))
    async with open_openai(cls, openai, connector_context) as connector:
        result = await run_job(connector, job(payload))
    assert result.success
    assert (openai.count("create"), openai.billed) == (1, 1)
    assert (resumptions(openai) > 0, polls(openai)) == (True, 0)


@streamed
async def test_a_stream_that_is_lost_again_and_again_is_polled(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(text="one two three", stream=StreamScript(cut_after=1))
    async with open_openai(cls, openai, connector_context) as connector:
        result = await run_job(connector, job(payload))
    assert result.success
    assert (openai.count("create"), openai.billed) == (1, 1)
    assert resumptions(openai) == 3
    assert polls(openai) > 0


@streamed
async def test_a_stream_that_falls_silent_is_lost(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(stream=StreamScript(stall_after=3))
    async with open_openai(cls, openai, connector_context, stream_read_timeout=0.1, stream_resumptions=1) as connector:
        result = await run_job(connector, job(payload))
    assert result.success
    assert openai.billed == 1


@streamed
async def test_a_connection_that_is_reset_is_a_lost_stream(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.inject("create", cut=2500, reset=True)
    async with open_openai(cls, openai, connector_context) as connector:
        assert (await run_job(connector, job(payload))).success
    assert (openai.count("create"), openai.billed) == (1, 1)
    assert (resumptions(openai), polls(openai)) == (1, 0)


@streamed
@pytest.mark.parametrize(("status", "code"), [(400, "unsupported_parameter"), (429, "rate_limit_exceeded"), (500, "x")])
async def test_a_stream_that_can_not_be_resumed_is_polled(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any], status: int, code: str
) -> None:
    openai.script = Script(stream=StreamScript(cut_after=2))
    openai.inject("retrieve", status=status, param="stream", code=code)
    async with open_openai(cls, openai, connector_context) as connector:
        assert (await run_job(connector, job(payload))).success
    assert resumptions(openai) == 1
    assert polls(openai) > 0
    assert openai.billed == 1


@streamed
async def test_a_stream_that_is_lost_before_it_names_the_response_may_be_billed(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = Script(stream=StreamScript(cut_after=0))
    context = FakeAttempt()
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload), context)
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, True)
    assert openai.count("create") == 1


@streamed
@pytest.mark.parametrize("nested", [True, False])
async def test_after_an_error_in_the_stream_the_next_attempt_adopts_what_goes_on(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any], nested: bool
) -> None:
    error = {"code": "server_error", "message": "The server had an error."}
    openai.script = Script(stream=StreamScript(error=error, error_nested=nested, cut_after=3))
    context = FakeAttempt()
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="server had an error") as caught:
            await run_job(connector, job(payload), context)
        assert caught.value.retry
        result = await run_job(connector, job(payload, attempt=2, checkpoint=context.checkpoint))
    assert result.success
    assert (openai.count("create"), openai.billed) == (1, 1)


async def test_a_stream_in_the_foreground_is_lost_for_good(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(stream=StreamScript(cut_after=4))
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(TEXT | {"background": False}))
    assert (caught.value.retry, caught.value.maybe_started) == (True, True)
    assert (openai.count("create"), openai.count("retrieve")) == (1, 0)


# Ended from outside, and adopted.


@streamed
@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_stops_the_response_only_where_the_job_is_over(
    openai: FakeOpenAI,
    connector_context: ConnectorContext,
    cls: Any,
    payload: dict[str, Any],
    stop_remote_work: bool,
    status: str,
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    async with open_openai(cls, openai, connector_context) as connector:
        with trio.fail_after(60):
            await cut_short(connector, payload, context)
    assert context.checkpoint == {"response_id": next(iter(openai.generations))}
    assert statuses(openai) == [status]


@streamed
@pytest.mark.parametrize(("stop_remote_work", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_before_the_stream_names_the_response_does_not_lose_it(
    openai: FakeOpenAI,
    connector_context: ConnectorContext,
    cls: Any,
    payload: dict[str, Any],
    stop_remote_work: bool,
    status: str,
) -> None:
    openai.script = LONG
    openai.inject("create", delay=0.3)
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    async with open_openai(cls, openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(payload), context)
                await openai.until("create")
                nursery.cancel_scope.cancel()
    assert context.checkpoint == {"response_id": next(iter(openai.generations))}
    assert statuses(openai) == [status]


async def test_a_cancel_ends_a_stream_in_the_foreground_at_once(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = LONG
    context = FakeAttempt()
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(TEXT | {"background": False}), context)
                await openai.until("create")
                nursery.cancel_scope.cancel()
            while statuses(openai) != ["cancelled"]:  # the fake has to see the connection close
                await trio.sleep(0.01)
    assert context.checkpoint == {"calls": 1}
    assert openai.count("cancel") == 0


@streamed
async def test_a_deadline_stops_the_response(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = LONG
    context = FakeAttempt(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(payload), context)
    assert statuses(openai) == ["cancelled"]


@streamed
async def test_a_stream_that_takes_too_long_is_cancelled_and_fails(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, connector_context, poll_timeout=0.3) as connector:
        with pytest.raises(ServiceError, match="was cancelled") as caught:
            await run_job(connector, job(payload))
    assert (caught.value.type, caught.value.reason) == ("timeout", "processing_timeout")
    assert statuses(openai) == ["cancelled"]


@streamed
async def test_a_next_attempt_adopts_the_response_by_polling(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, payload: dict[str, Any]
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload, context)
        openai.finish_all()
        result = await run_job(connector, job(payload, attempt=2, checkpoint=context.checkpoint))
    assert result.service_metadata["service_job_id"] == next(iter(openai.generations))
    assert (openai.count("create"), openai.billed) == (1, 1)


@pytest.mark.parametrize("background", [None, False])
async def test_what_could_not_be_saved_is_uploaded_by_the_next_attempt_and_not_paid_for_again(
    openai: FakeOpenAI, connector_context: ConnectorContext, background: bool | None
) -> None:
    payload = TEXT | ({} if background is None else {"background": background})
    async with open_openai(OpenAIResponsesConnector, openai, broken(connector_context)) as connector:
        with pytest.raises(Exception, match="storage is away"):
            await run_job(connector, job(payload))
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job(payload, attempt=2))
    assert result.data["text"]
    assert result.output_files
    assert (openai.count("create"), openai.billed) == (1, 1)


@pytest.mark.parametrize(
    "last",
    [
        b'data: {"type": "error", "code": "server_error", "message": "the words"}\n\n',
        b'data: {"error": {"code": "rate_limit_exceeded", "message": "the words"}}\n\n',
        b'data: {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}}\n\n',
        b'data: {"type": "response.incomplete", "response": {"output": []}}\n\n',
        b"data: [DONE]\n\n",
    ],
)
async def test_words_in_hand_are_not_paid_for_again(connector_context: ConnectorContext, last: bytes) -> None:
    begun = b'data: {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}\n\n'
    words = b'data: {"type": "response.output_text.delta", "delta": "some"}\n\n'
    async with open_faulty_server(event_stream(begun, words, last)) as faulty:
        settings = OpenAIResponsesConnector.Settings(
            openai=OpenAISettings(api_key=Secret("sk-x")), http=HttpSettings(base_url=faulty.url)
        )
        async with open_connector(OpenAIResponsesConnector, settings, connector_context) as connector:
            result = await run_job(connector, job(TEXT | {"background": False}))
        assert len(faulty.requests) == 1
    assert (result.data["text"], result.data["truncated"]) == ("some", True)
