"""The three ways of ``OpenAIText2ImgConnector`` to an image against the fake API: when each is taken, and what it
costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, InvalidJob, Refused, ServiceError
from emp_trio.jobs import JobResult
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.previews import PreviewSettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.testing.openai.script import StreamScript
from emp_trio.worker.circuit import verdict
from tests.services.openai.support import broken, open_openai, statuses
from tests.services.support import job, stored

CAT = {"prompt": "a cat"}
DIRECT = CAT | {"approach": "direct"}
STREAMING = CAT | {"approach": "streaming"}


async def made(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any], **options: Any
) -> JobResult:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context, **options) as connector:
        return await run_job(connector, job(payload))


def outcomes(result: JobResult) -> list[tuple[str, str]]:
    return [(attempt["approach"], attempt["outcome"]) for attempt in result.data["attempts"]]


def refuse(openai: FakeOpenAI, times: int = 1, **error: Any) -> None:
    """Let the next requests for a response be refused."""
    options: dict[str, Any] = {"status": 400, "type": "invalid_request_error", "times": times}
    openai.inject("create", **(options | error))


# The order.


async def test_the_first_way_is_enough_where_it_works(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    result = await made(openai, connector_context, CAT)
    assert outcomes(result) == [("background", "completed")]
    assert (openai.count("create"), openai.count("images"), openai.billed) == (1, 0, 1)


@pytest.mark.parametrize("approach", ["background", "streaming"])
async def test_a_service_that_takes_tool_choice_as_a_text_only_gets_one(
    openai: FakeOpenAI, connector_context: ConnectorContext, approach: str
) -> None:
    openai.plain_tool_choice = True
    result = await made(openai, connector_context, CAT | {"approach": approach})
    assert outcomes(result) == [(approach, "completed")]
    assert [r.body["tool_choice"] for r in openai.requests if r.route == "create"] == [
        {"type": "image_generation"},
        "required",
    ]
    assert openai.billed == 1


async def test_a_refused_tool_choice_is_asked_for_twice_and_no_more(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    refuse(openai, 2, param="tool_choice", code="invalid_value")
    result = await made(openai, connector_context, CAT)
    assert outcomes(result) == [("background", "unavailable"), ("streaming", "completed")]
    assert (openai.count("create"), openai.billed) == (3, 1)


async def test_a_service_without_background_mode_streams_in_the_foreground(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    refuse(openai, param="background", code="unsupported_parameter")
    result = await made(openai, connector_context, CAT)
    assert result.data["approach"] == "streaming"
    assert outcomes(result) == [("background", "unavailable"), ("streaming", "completed")]
    assert "unsupported_parameter" in result.data["attempts"][0]["reason"]
    assert "background" not in openai.requests[1].body
    assert openai.requests[1].body["stream"] is True
    assert (openai.count("create"), openai.count("cancel"), openai.billed) == (2, 0, 1)


async def test_streaming_that_was_asked_for_does_without_background_mode_too(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    refuse(openai, param="background", code="unsupported_parameter")
    result = await made(openai, connector_context, STREAMING)
    assert outcomes(result) == [("streaming", "completed")]
    assert [bool(request.body.get("background")) for request in openai.requests] == [True, False]
    assert openai.billed == 1


@pytest.mark.parametrize(
    "error",
    [
        {"param": "tools", "message": "Tool 'image_generation' is not supported with gpt-x."},
        {"status": 404, "message": "Invalid URL (POST /v1/responses)"},
        {"status": 404, "body": b""},
    ],
)
async def test_a_service_without_the_tool_or_the_path_is_asked_through_the_images_api(
    openai: FakeOpenAI, connector_context: ConnectorContext, error: dict[str, Any]
) -> None:
    refuse(openai, times=2, **error)
    result = await made(openai, connector_context, CAT)
    assert outcomes(result) == [("background", "unavailable"), ("streaming", "unavailable"), ("direct", "completed")]
    assert result.data["approach"] == "direct"
    assert (openai.count("create"), openai.count("images"), openai.billed) == (2, 1, 1)


async def test_the_settings_give_the_order(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.inject("images", status=404)
    result = await made(openai, connector_context, CAT, own={"approaches": "direct, background"})
    assert outcomes(result) == [("direct", "unavailable"), ("background", "completed")]


async def test_when_there_is_no_way_left_the_error_names_them_all(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    refuse(openai, times=2, status=404)
    openai.inject("images", status=404)
    with pytest.raises(ServiceError, match=r"background: .* streaming: .* direct: ") as caught:
        await made(openai, connector_context, CAT)
    assert not caught.value.retry
    assert openai.billed == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "moderation_blocked", "type": "image_generation_user_error"}, "generation_refusal"),
        ({"code": "invalid_value", "param": "size", "type": "image_generation_user_error"}, "validation_error"),
        ({"code": "invalid_value", "param": "model", "type": "image_generation_user_error"}, "validation_error"),
        ({"code": "unsupported_parameter", "param": "temperature"}, "validation_error"),
        ({"status": 404, "code": "model_not_found"}, "validation_error"),
        ({"status": 401, "code": "invalid_api_key"}, "auth_error"),
        ({"status": 403}, "auth_error"),
        ({"status": 429, "code": "insufficient_quota", "type": "insufficient_quota"}, "rate_limit"),
        ({"status": 429, "code": "rate_limit_exceeded", "times": 9}, "rate_limit"),
        ({"status": 503, "code": "server_is_overloaded", "times": 9}, "service_error"),
        ({"status": 500, "code": "server_error"}, "service_error"),
        ({"status": 500, "code": "server_error", "after": True}, "service_error"),
    ],
)
@pytest.mark.parametrize("payload", [CAT, STREAMING | {"approach": None}], ids=["background first", "streaming first"])
async def test_no_other_failure_leads_to_another_way(
    openai: FakeOpenAI, connector_context: ConnectorContext, error: dict[str, Any], kind: str, payload: dict[str, Any]
) -> None:
    refuse(openai, **error)
    own = {"approaches": "background,direct" if payload is CAT else "streaming,direct"}
    with pytest.raises(ServiceError) as caught:
        await made(openai, connector_context, payload, own=own)
    assert caught.value.type == kind
    assert openai.count("images") == 0
    assert openai.billed == (1 if error.get("after") else 0)


async def test_a_response_that_is_not_finished_in_time_is_stopped_and_nothing_else_is_tried(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(seconds=3600)
    with pytest.raises(ServiceError, match="was cancelled"):
        await made(openai, connector_context, CAT, poll_timeout=0.2)
    assert statuses(openai) == ["cancelled"]
    assert (openai.count("create"), openai.count("images")) == (1, 0)


async def test_words_instead_of_a_image_are_not_asked_for_again(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(images=0, text="No.")
    with pytest.raises(Refused):
        await made(openai, connector_context, CAT)
    assert (openai.count("create"), openai.count("images"), openai.billed) == (1, 0, 1)


async def test_a_failed_upload_leads_to_no_other_way(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    with pytest.raises(AssetError):
        await made(openai, broken(connector_context), CAT)
    assert (openai.count("create"), openai.count("images"), openai.billed) == (1, 0, 1)


@pytest.mark.parametrize("payload", [{"approach": "prayer"}, {"approach": "background", "n": 2}, {"n": 11}])
async def test_what_can_not_be_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any]
) -> None:
    with pytest.raises(InvalidJob):
        await made(openai, connector_context, CAT | payload)
    assert openai.requests == []


# What is asked for reaches the API in every way.


@pytest.mark.parametrize("approach", ["background", "streaming", "direct"])
async def test_every_option_reaches_the_api(
    openai: FakeOpenAI, connector_context: ConnectorContext, approach: str
) -> None:
    options = {
        "model": "gpt-image-2.6-sunburst",
        "size": "1536x1024",
        "quality": "xhigh",
        "output_format": "webp",
        "background": "transparent",
        "output_compression": 80,
        "moderation": "low",
    }
    result = await made(openai, connector_context, CAT | options | {"approach": approach})
    body = openai.requests[0].body
    sent = body if approach == "direct" else body["tools"][0]
    assert {name: sent[name] for name in options} == options
    assert result.data["mime_type"] == "image/webp"
    assert result.data["image_model"] == "gpt-image-2.6-sunburst"
    assert (result.data["size"], result.data["quality"]) == ("1536x1024", "xhigh")
    assert result.data["usage"]["image"]["output_tokens"] > 0
    assert "<base64 image, " in str(result.data["raw_output"])
    assert len(msgspec.json.encode(result)) < 6000
    assert result.service_metadata["request_ids"]
    assert openai.billed == 1


# The Images API.


async def test_several_images_are_the_images_apis(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    result = await made(openai, connector_context, CAT | {"n": 3})
    assert outcomes(result) == [("direct", "completed")]
    assert openai.requests[0].body["n"] == 3
    assert [file.filename for file in result.output_files] == ["job-1_0.png", "job-1_1.png", "job-1_2.png"]
    assert len({file.metadata["sha256"] for file in result.output_files}) == 3
    assert len(stored(tmp_path / "assets")) == 3
    assert (openai.count("create"), openai.billed) == (0, 3)


@pytest.mark.parametrize("status", [500, 502])
async def test_a_call_that_may_have_run_is_repeated_by_one_attempt_only(
    openai: FakeOpenAI, connector_context: ConnectorContext, status: int
) -> None:
    openai.inject("images", status=status, after=True, times=9)
    checkpoint = None
    retries = []
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        for attempt in (1, 2, 3):
            context = FakeAttempt()
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job(DIRECT, attempt=attempt, checkpoint=checkpoint), context)
            retries.append(caught.value.retry)
            checkpoint = context.checkpoint or checkpoint
    assert retries == [True, False, False]
    assert verdict(caught.value, caught.value.failure) == "neutral", "not asked, so it tells nothing of the service"
    assert (openai.count("images"), openai.billed) == (2, 2)


async def test_a_result_says_that_an_earlier_call_may_have_been_billed(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("images", cut=100, after=True)
    context = FakeAttempt()
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(DIRECT), context)
        assert caught.value.maybe_started
        result = await run_job(connector, job(DIRECT, attempt=2, checkpoint=context.checkpoint))
    assert result.metadata["maybe_billed_before"] == 1
    assert openai.billed == 2


async def test_a_fault_before_the_call_was_taken_is_repeated_and_not_counted(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("images", status=503, code="server_is_overloaded")
    openai.inject("images", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "10"})
    result = await made(openai, connector_context, DIRECT)
    assert "maybe_billed_before" not in result.metadata
    assert (openai.count("images"), openai.billed) == (3, 1)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(image_error={"code": "moderation_blocked", "message": "No."}), "generation_refusal"),
        (Script(image_error={"code": "invalid_value", "param": "size", "message": "No."}), "validation_error"),
        (Script(status="failed", error={"type": "image_generation_user_error", "code": "x"}), "validation_error"),
    ],
)
async def test_failures_of_the_images_api_are_final(
    openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, kind: str
) -> None:
    openai.script = script
    context = FakeAttempt()
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(DIRECT), context)
    assert (caught.value.type, caught.value.retry) == (kind, False)
    assert (openai.count("images"), openai.billed) == (1, 0)
    assert context.checkpoint == {"calls": 0}


@pytest.mark.parametrize(
    "body", [b"{}", b'{"data": []}', b'{"data": [{"url": null}]}', b'{"data": [{"b64_json": "?"}]}']
)
async def test_an_answer_without_a_usable_image(
    openai: FakeOpenAI, connector_context: ConnectorContext, body: bytes
) -> None:
    openai.inject("images", body=body, content_type="application/json")
    with pytest.raises(ServiceError) as caught:
        await made(openai, connector_context, DIRECT)
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


async def test_a_call_that_takes_too_long_is_given_up(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(seconds=3600)
    with pytest.raises(ServiceError) as caught:
        await made(openai, connector_context, DIRECT, own={"image_timeout": 0.2})
    assert (caught.value.type, caught.value.maybe_started) == ("timeout", True)


async def test_a_slow_image_is_waited_for_beyond_the_read_timeout(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(seconds=0.4)
    assert (await made(openai, connector_context, DIRECT, http={"read_timeout": 0.1, "timeout": 0.2})).success


async def test_a_deadline_ends_the_call(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(seconds=3600)
    context = FakeAttempt(0.4, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(DIRECT), context)
    assert context.checkpoint == {"calls": 1}


async def test_a_cancel_ends_the_call_at_once_and_the_next_attempt_knows(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(seconds=3600)
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(DIRECT), context)
                await openai.until("images")
                nursery.cancel_scope.cancel()
        openai.script = Script()
        result = await run_job(connector, job(DIRECT, attempt=2, checkpoint=context.checkpoint))
    assert result.metadata["maybe_billed_before"] == 1
    assert openai.count("images") == 2


@pytest.mark.parametrize("payload", [DIRECT, STREAMING, CAT | {"n": 2}], ids=["direct", "streaming", "several"])
async def test_images_that_could_not_be_saved_are_uploaded_by_the_next_attempt(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any], tmp_path: Path
) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, broken(connector_context)) as connector:
        with pytest.raises(AssetError, match="kept on this machine"):
            await run_job(connector, job(payload))
    billed, asked = openai.billed, len(openai.requests)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job(payload, attempt=2))
    assert result.data["approach"] in ("direct", "streaming")
    assert result.data["image_url"] == result.output_files[-1].metadata["cdn_url"]
    assert len(stored(tmp_path / "assets")) == len(result.output_files) == billed
    assert (openai.billed, len(openai.requests)) == (billed, asked)


# Partial images.


def previews(**more: Any) -> dict[str, Any]:
    return {"preview": PreviewSettings(**({"previews": True, "preview_interval": 0.01} | more))}


async def test_previews_are_saved_beside_the_image_and_their_addresses_told(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(seconds=1.0)
    context = FakeAttempt()
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context, own=previews()) as connector:
        result = await run_job(connector, job(STREAMING), context)
    told = [report.message for report in context.reports if report.message.startswith("preview ")]
    assert [message.partition(": ")[0] for message in told] == ["preview 1", "preview 2"]
    assert told[0].endswith("job-1_1000001.png")
    assert set(stored(tmp_path / "assets")) == {"job-1_0.png", "job-1_1000001.png", "job-1_1000002.png"}
    assert [file.filename for file in result.output_files] == ["job-1_0.png"]
    assert max(len(report.message) for report in context.reports) < 500


@pytest.mark.parametrize("own", [{}, previews(preview_max_bytes=10), previews() | {"partial_images": 0}])
async def test_previews_are_optional_and_limited_in_size(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path, own: dict[str, Any]
) -> None:
    await made(openai, connector_context, STREAMING, own=own)
    assert set(stored(tmp_path / "assets")) == {"job-1_0.png"}


async def test_a_preview_that_can_not_be_saved_costs_the_job_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(seconds=0.5)
    context = FakeAttempt()
    async with open_openai(OpenAIText2ImgConnector, openai, broken(connector_context), own=previews()) as connector:
        with pytest.raises(AssetError):  # of the image itself, at the end
            await run_job(connector, job(STREAMING), context)
    assert openai.billed == 1
    assert "partial image 2 of 2" in [report.message for report in context.reports]


async def test_fewer_partial_images_than_asked_for_do_no_harm(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(stream=StreamScript(partial_images=0))
    assert (await made(openai, connector_context, STREAMING)).success
