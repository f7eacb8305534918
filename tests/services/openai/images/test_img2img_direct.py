"""``OpenAIImg2ImgConnector`` in its other way: the Images API; and the step from one way to the other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, Refused, ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.forms import Upload
from emp_trio.testing.openai import FakeOpenAI, Script
from tests.services.openai.images.img2img_support import JPEG, MASK, PNG, data_url, edit, open_img2img
from tests.services.openai.support import LONG
from tests.services.support import job, stored


def direct(**payload: Any) -> dict[str, Any]:
    return edit(approach="direct", **payload)


def upload(name: str, filename: str, media_type: str, data: bytes) -> Upload:
    return Upload(name=name, filename=filename, content_type=media_type, data=data)


async def cut_short(connector: Any, openai: FakeOpenAI, payload: dict[str, Any], context: FakeAttempt) -> None:
    """Run an attempt until its call has arrived, then end it as its reporter says."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload), context)
            await openai.until("edits", openai.count("edits") + 1)
            nursery.cancel_scope.cancel()


async def test_files_go_as_a_form(openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path) -> None:
    async with open_faulty_server(reply(200, JPEG)) as images, open_img2img(openai, connector_context) as connector:
        payload = direct(
            images=[data_url(PNG), f"{images.url}/a%20cat.jpeg?sig=hidden"],
            mask=data_url(MASK),
            n=2,
            size="1024x1536",
            quality="hd",
            background="opaque",
            output_format="webp",
            compression=80,
        )
        result = await run_job(connector, job(payload))
    (request,) = openai.requests
    assert request.route == "edits"
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert request.headers["x-client-request-id"] == "job-1-1"
    scalars = {
        "model": "gpt-image-2.6-flare",
        "prompt": "make it blue",
        "n": 2,
        "size": "1024x1536",
        "quality": "high",
        "background": "opaque",
        "output_format": "webp",
        "output_compression": 80,
    }
    assert request.body == scalars | {
        "images": [
            upload("image[]", "image.png", "image/png", PNG),
            upload("image[]", "a_cat.jpg", "image/jpeg", JPEG),
        ],
        "mask": upload("mask", "image.png", "image/png", MASK),
    }
    assert len(stored(tmp_path / "assets")) == len(result.output_files) == 2
    assert result.data["approach"] == "direct"
    assert result.data["image_url"] == result.output_files[1].metadata["cdn_url"]
    assert result.data["mime_type"] == "image/webp"
    assert (result.data["size"], result.data["quality"]) == ("1024x1536", "high")
    assert result.data["usage"]["image"]["output_tokens"] > 0
    assert result.service_metadata["request_ids"]
    assert result.raw_request_payload == scalars | {
        "images": [
            {"image_url": f"<image/png, {len(PNG)} bytes>"},
            {"image_url": f"<image/jpeg, {len(JPEG)} bytes>"},
        ],
        "mask": {"image_url": f"<image/png, {len(MASK)} bytes>"},
    }
    assert openai.billed == 2
    assert "hidden" not in msgspec.json.encode(result).decode()


@pytest.mark.parametrize(
    ("payload", "images", "mask"),
    [
        ({"images": ["file-abc123", data_url(PNG)]}, [{"file_id": "file-abc123"}, {"image_url": data_url(PNG)}], None),
        ({"file_id": "weird id"}, [{"file_id": "weird id"}], None),
        ({"image": data_url(PNG), "mask": "file-mask12"}, [{"image_url": data_url(PNG)}], {"file_id": "file-mask12"}),
        ({"image": data_url(PNG), "moderation": "low"}, [{"image_url": data_url(PNG)}], None),
    ],
)
async def test_what_a_form_can_not_say_goes_as_json(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any], images: Any, mask: Any
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        await run_job(connector, job(direct(**payload)))
    body = openai.requests[0].body
    assert openai.requests[0].headers["content-type"] == "application/json"
    assert (body["images"], body.get("mask")) == (images, mask)
    assert body.get("moderation") == payload.get("moderation")
    assert body["n"] == 1


async def test_a_single_image_has_the_plain_name(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_img2img(openai, connector_context) as connector:
        await run_job(connector, job(direct()))
    assert openai.requests[0].body["images"] == [upload("image", "image.png", "image/png", PNG)]


@pytest.mark.parametrize(
    ("payload", "sent", "warned"),
    [
        ({"input_fidelity": "high"}, None, "input_fidelity"),
        ({"input_fidelity": "high", "model": "gpt-image-1.5"}, "high", "2026-12-01"),
        ({"complexity": "high"}, None, "complexity"),
    ],
)
async def test_only_what_the_model_and_the_call_take_is_sent(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any], sent: str | None, warned: str
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(direct(**payload)))
    assert openai.requests[0].body.get("input_fidelity") == sent
    assert "complexity" not in openai.requests[0].body
    assert warned in " ".join(result.metadata["warnings"])


async def test_several_images_are_the_images_apis_alone(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(edit(n=3)))
    assert [request.route for request in openai.requests] == ["edits"]
    assert len(result.output_files) == 3


# From one way to the other.

UNSUPPORTED_TOOL = {
    "status": 400,
    "type": "invalid_request_error",
    "param": "tools",
    "code": None,
    "message": "Tool 'image_generation' is not supported with gpt-6-luna.",
}
NO_PATH: dict[str, Any] = {"status": 404, "body": b"", "content_type": "text/html"}


@pytest.mark.parametrize("fault", [UNSUPPORTED_TOOL, NO_PATH])
async def test_the_other_way_is_taken_where_one_is_not_to_be_had(
    openai: FakeOpenAI, connector_context: ConnectorContext, fault: dict[str, Any]
) -> None:
    openai.inject("create", **fault)
    async with open_faulty_server(reply(200, PNG)) as images, open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(edit(image_url=images.url)))
        assert len(images.requests) == 1
    assert [(a["approach"], a["outcome"]) for a in result.data["attempts"]] == [
        ("background", "unavailable"),
        ("direct", "completed"),
    ]
    assert (openai.count("create"), openai.count("edits"), openai.billed) == (1, 1, 1)


async def test_the_order_is_a_setting(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.inject("edits", **NO_PATH)
    async with open_img2img(openai, connector_context, approaches=("direct", "background")) as connector:
        result = await run_job(connector, job(edit()))
    assert result.data["approach"] == "background"
    assert [request.route for request in openai.requests][:2] == ["edits", "create"]
    assert openai.billed == 1


async def test_a_way_that_a_job_names_is_the_only_one(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.inject("edits", **NO_PATH)
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="none of the ways") as caught:
            await run_job(connector, job(direct()))
    assert not caught.value.retry
    assert [request.route for request in openai.requests] == ["edits"]


# What OpenAI says.


async def test_a_refusal_is_final(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(image_error={"code": "moderation_blocked", "message": "No."})
    async with open_img2img(openai, connector_context, approaches=("direct", "background")) as connector:
        with pytest.raises(Refused):
            await run_job(connector, job(edit()))
    assert ([request.route for request in openai.requests], openai.billed) == (["edits"], 0)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_image_file", "validation_error"),
        (400, "invalid_value", "validation_error"),
        (401, "invalid_api_key", "auth_error"),
        (403, None, "auth_error"),
        (413, None, "validation_error"),
        (429, "insufficient_quota", "rate_limit"),
    ],
)
async def test_a_final_answer_is_asked_for_once(
    openai: FakeOpenAI, connector_context: ConnectorContext, status: int, code: str | None, kind: str
) -> None:
    openai.inject("edits", status=status, code=code, type="invalid_request_error", times=9)
    context = FakeAttempt()
    async with open_img2img(openai, connector_context, approaches=("direct", "background")) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(edit()), context)
    assert (caught.value.type, caught.value.retry) == (kind, False)
    assert [request.route for request in openai.requests] == ["edits"]
    assert context.checkpoint == {"calls": 0}


async def test_a_call_that_was_not_taken_up_is_repeated(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("edits", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "10"})
    openai.inject("edits", status=503, code="server_is_overloaded")
    async with open_img2img(openai, connector_context) as connector:
        await run_job(connector, job(direct()))
    assert (openai.count("edits"), openai.billed) == (3, 1)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "code": "server_error"},
        {"body": b"{}", "content_type": "application/json"},
        {"body": b'{"data": [{}]}', "content_type": "application/json"},
        {"body": b'{"data": [{"b64_json": "?"}]}', "content_type": "application/json"},
        {"cut": 1000},
    ],
)
async def test_a_call_that_may_have_been_billed_is_made_twice_and_no_more(
    openai: FakeOpenAI, connector_context: ConnectorContext, fault: dict[str, Any]
) -> None:
    openai.inject("edits", after=True, times=9, **fault)
    context = FakeAttempt()
    async with open_img2img(openai, connector_context) as connector:
        for attempt in (1, 2):
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job(edit(n=2), attempt=attempt, checkpoint=context.checkpoint), context)
            assert caught.value.maybe_started
            assert openai.count("edits") == attempt
        assert context.checkpoint == {"calls": 2}
        with pytest.raises(ServiceError, match="not asked again") as caught:
            await run_job(connector, job(edit(n=2), attempt=3, checkpoint=context.checkpoint), context)
    assert not caught.value.retry
    assert openai.count("edits") == 2


async def test_a_time_limit_ends_the_call(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = LONG
    async with open_img2img(openai, connector_context, image_timeout=0.3) as connector:
        with trio.fail_after(60), pytest.raises(ServiceError) as caught:
            await run_job(connector, job(direct()))
    assert (caught.value.type, caught.value.maybe_started) == ("timeout", True)


# How an attempt ends, and what the next one makes of it.


@pytest.mark.parametrize("stop_remote_work", [True, False])
async def test_after_a_crash_the_call_is_made_once_more_and_said(
    openai: FakeOpenAI, connector_context: ConnectorContext, stop_remote_work: bool
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    async with open_img2img(openai, connector_context) as first:
        await cut_short(first, openai, direct(), context)
    assert context.checkpoint == {"calls": 1}
    openai.script = Script()
    async with open_img2img(openai, connector_context) as second:
        result = await run_job(second, job(direct(), attempt=2, checkpoint=context.checkpoint))
    assert result.data["approach"] == "direct"
    assert result.metadata["maybe_billed_before"] == 1
    assert (openai.count("edits"), openai.count("create")) == (2, 0)


async def test_the_deadline_ends_the_call(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = LONG
    context = FakeAttempt(0.8, limits=StageLimits(upload=0.1, cdn=0.1, settle=0.1))
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(direct()), context)


async def test_an_upload_that_failed_is_repeated_without_a_generation(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    folder = tmp_path / "assets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file where the folder should be")
    context = FakeAttempt()
    async with open_faulty_server(reply(200, PNG)) as images, open_img2img(openai, connector_context) as connector:
        payload = direct(image_url=images.url, n=2)
        with pytest.raises(AssetError) as caught:
            await run_job(connector, job(payload), context)
        assert caught.value.paid
        folder.unlink()
        again = job(payload, attempt=2, retry_count=1, checkpoint=context.checkpoint)
        result = await run_job(connector, again, context)
        assert len(images.requests) == 1
    assert len(stored(folder)) == len(result.output_files) == 2
    assert result.data["approach"] == "direct"
    assert (openai.count("edits"), openai.billed) == (1, 2)
