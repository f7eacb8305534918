"""``OpenAIImg2ImgConnector`` in its first way: a background response with the image tool."""

from __future__ import annotations

import base64
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import (
    AssetError,
    ConfigError,
    DeadlineExceeded,
    EmpTrioError,
    InputUnavailable,
    InvalidJob,
    Refused,
    ServiceError,
)
from emp_trio.jobs import JobContext
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import Faulty, hang, open_faulty_server, redirect, reply
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.worker.circuit import verdict
from tests.services.openai.images.img2img_support import JPEG, MASK, PNG, data_url, edit, open_img2img
from tests.services.openai.support import LONG, cut_short, statuses
from tests.services.support import job, stored

BLUE = {"type": "input_text", "text": "make it blue"}


def part(data: bytes, media_type: str = "image/png") -> dict[str, str]:
    return {"type": "input_image", "detail": "auto", "image_url": data_url(data, media_type)}


@pytest.fixture
async def images() -> AsyncIterator[Faulty]:
    """A server of one image."""
    async with open_faulty_server(reply(200, PNG, content_type="image/png")) as faulty:
        yield faulty


async def test_a_image_and_a_prompt_become_a_image(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(edit(images=[data_url(PNG)])))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert content.startswith(b"\x89PNG")
    url = result.data["image_url"]
    assert result.data["mime_type"] == "image/png"
    assert result.data["content_type"] == "image"
    assert result.data["approach"] == "background"
    assert result.data["attempts"] == [{"approach": "background", "outcome": "completed"}]
    assert result.data["original_prompt"] == "make it blue"
    assert result.data["reference_images_count"] == 1
    assert result.data["image_model"] == "gpt-image-2.6-flare"
    assert result.data["openai_job_id"] in openai.generations
    assert result.metadata["saved_asset"]["fileUrl"] == url
    assert result.metadata["saved_asset"]["fileName"] == name
    assert result.output_files[0].metadata["cdn_url"] == url
    assert result.service_metadata["service_type"] == "image_generation"
    assert openai.billed == 1
    assert len(msgspec.json.encode(result)) < 6000


async def test_the_request_is_the_documented_one(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    payload = edit(
        images=[data_url(PNG), base64.b64encode(JPEG).decode(), {"file_id": "file-abc123"}],
        mask=data_url(MASK),
        size="1536x1024",
        quality="hd",
        background="opaque",
        output_format="webp",
        compression=80,
        moderation="low",
        n=1,
        metadata={"customer": "c1"},
    )
    async with open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(payload))
    body = {
        "model": "gpt-6-luna",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    BLUE,
                    part(PNG),
                    part(JPEG, "image/jpeg"),
                    {"type": "input_image", "detail": "auto", "file_id": "file-abc123"},
                ],
            }
        ],
        "background": True,
        "store": True,
        "tools": [
            {
                "type": "image_generation",
                "model": "gpt-image-2.6-flare",
                "size": "1536x1024",
                "quality": "high",
                "background": "opaque",
                "output_format": "webp",
                "output_compression": 80,
                "moderation": "low",
                "action": "edit",
                "input_image_mask": {"image_url": data_url(MASK)},
            }
        ],
        "tool_choice": {"type": "image_generation"},
        "metadata": {"customer": "c1", "job_id": "job-1"},
    }
    assert openai.requests[0].body == body
    assert result.data["reference_images_count"] == 3
    record = result.raw_request_payload
    assert record["input"][0]["content"][1]["image_url"] == f"<image/png, {len(PNG)} bytes>"
    assert record["tools"][0]["input_image_mask"] == {"image_url": f"<image/png, {len(MASK)} bytes>"}
    record["input"], record["tools"][0]["input_image_mask"] = body["input"], {"image_url": data_url(MASK)}
    assert record == body


@pytest.mark.parametrize(
    "payload",
    [
        {"images": [data_url(PNG)]},
        {"images": data_url(PNG)},
        {"image": base64.b64encode(PNG).decode()},
        {"base64": base64.b64encode(PNG).decode()},
        {"image_url": {"url": data_url(PNG)}},
        {"images": [{"type": "input_image", "image_url": data_url(PNG)}]},
        {"images": [{"b64_json": base64.b64encode(PNG).decode()}]},
        {"image": {"data": data_url(PNG, "image/jpeg")}, "images": []},
        {"image": data_url(PNG), "image_url": data_url(PNG)},
    ],
)
async def test_every_way_to_give_a_image(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any]
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        await run_job(connector, job({"text": "make it blue"} | payload))
    assert openai.requests[0].body["input"][0]["content"] == [BLUE, part(PNG)]


async def test_a_url_is_fetched_by_the_worker(
    openai: FakeOpenAI, connector_context: ConnectorContext, images: Faulty
) -> None:
    url = f"{images.url}/cat.png?sig=hidden"
    async with open_img2img(openai, connector_context) as connector:
        result = await run_job(connector, job(edit(image_url=url)))
    assert openai.requests[0].body["input"][0]["content"][1] == part(PNG)
    assert [request.target for request in images.requests] == ["/cat.png?sig=hidden"]
    assert "authorization" not in images.requests[0].headers
    assert "hidden" not in msgspec.json.encode(result).decode()


# Nothing is paid for a job that can't be run.

HTML = base64.b64encode(b"<!doctype html><title>x</title>").decode()


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"prompt": "x"}, "no images"),
        ({"prompt": "x", "images": []}, "no images"),
        ({"prompt": "x", "image": ""}, "no images"),
        ({"images": [data_url(PNG)]}, "no prompt"),
        ({"prompt": "", "images": [data_url(PNG)]}, "no prompt"),
        (edit(images=[7]), "int where an image"),
        (edit(images=[{}]), "object without any of"),
        (edit(images=[{"url": 7}]), "int where an image"),
        (edit(images=["{{image}}"]), "template"),
        (edit(images=["not base64!"]), "neither"),
        (edit(images=[HTML]), "text/html"),
        (edit(images=[data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png")]), "image/svg"),
        (edit(images=[data_url(b"GIF89a" + bytes(50), "image/png")]), "image/gif"),
        (edit(images=[data_url(PNG + bytes(100_000))]), "larger than the 100000 bytes"),
        (edit(images=[f"file-{number:06d}" for number in range(17)]), "17 images"),
        (edit(mask=data_url(JPEG)), "accepted are image/png"),
        (edit(mask=[data_url(PNG), data_url(MASK)]), "more than one mask"),
        (edit(image_url="http://169.254.169.254/latest/meta-data"), "address"),
        (edit(image_url="https://user:pw@example.com/x.png"), "password"),
        (edit(n=11), "payload.n"),
        (edit(n=2, approach="background"), "approach"),
        (edit(approach="streaming"), "approach"),
    ],
)
async def test_a_wrong_job_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: Any, said: str
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(InvalidJob, match=said) as caught:
            await run_job(connector, job(payload))
    assert not caught.value.retry
    assert openai.requests == []


async def test_private_addresses_are_refused_unless_a_setting_allows_them(
    openai: FakeOpenAI, connector_context: ConnectorContext, images: Faulty
) -> None:
    async with open_img2img(openai, connector_context, private=False) as connector:
        with pytest.raises(InvalidJob, match="only public ones"):
            await run_job(connector, job(edit(image_url=f"{images.url}/x.png")))
    assert openai.requests == []
    assert images.requests == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(404), InvalidJob),
        (reply(200, "<!doctype html>", content_type="image/png"), InvalidJob),
        (reply(200, PNG + bytes(100_000)), InvalidJob),
        (redirect("http://169.254.169.254/"), InvalidJob),
        (reply(503), InputUnavailable),
        (hang(), InputUnavailable),
    ],
)
async def test_a_url_that_leads_to_no_image_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, answer: Any, error: type[EmpTrioError]
) -> None:
    async with open_faulty_server(answer) as faulty, open_img2img(openai, connector_context) as connector:
        fetch = msgspec.structs.replace(connector.settings.fetch, input_timeout=0.3)
        async with open_img2img(openai, connector_context, fetch=fetch) as quick:
            with pytest.raises(error) as caught:
                await run_job(quick, job(edit(images=[data_url(PNG), f"{faulty.url}/x.png?sig=hidden"])))
    assert caught.value.retry is (error is InputUnavailable)
    assert verdict(caught.value, caught.value.failure) == "neutral"  # OpenAI is not to blame
    assert "hidden" not in str(caught.value)
    assert openai.requests == []


async def test_storage_that_can_not_work_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, images: Faulty
) -> None:
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(ConfigError):
            await run_job(connector, job(edit(image_url=images.url), ctx=JobContext(provider="azure")))
    assert (openai.requests, images.requests) == ([], [])


# What OpenAI says.


async def test_moderation_is_a_refusal_and_no_other_way_is_tried(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.inject("create", status=400, type="image_generation_user_error", code="moderation_blocked")
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(Refused):
            await run_job(connector, job(edit()))
    assert ([request.route for request in openai.requests], openai.billed) == (["create"], 0)


async def test_words_instead_of_a_image_are_a_refusal(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(images=0, text="I would rather not.")
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(Refused, match="rather not"):
            await run_job(connector, job(edit()))
    assert openai.billed == 1


@pytest.mark.parametrize(
    "code", ["invalid_image", "invalid_image_format", "image_too_large", "image_file_not_found", "empty_image_file"]
)
async def test_a_image_that_openai_does_not_take_is_the_submitters_mistake(
    openai: FakeOpenAI, connector_context: ConnectorContext, code: str
) -> None:
    openai.script = Script(status="failed", error={"code": code, "message": "no good"})
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="no good") as caught:
            await run_job(connector, job(edit()))
    assert (caught.value.type, caught.value.retry) == ("validation_error", False)
    assert openai.count("create") == 1


@pytest.mark.parametrize(
    ("status", "code", "retry"),
    [(401, "invalid_api_key", False), (403, None, False), (429, "insufficient_quota", False), (500, None, True)],
)
async def test_no_other_way_is_tried_for_an_account_or_a_fault(
    openai: FakeOpenAI, connector_context: ConnectorContext, status: int, code: str | None, retry: bool
) -> None:
    openai.inject("create", status=status, code=code, times=9)
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(edit()))
    assert caught.value.retry is retry
    assert {request.route for request in openai.requests} == {"create"}


# How an attempt ends, and what the next one makes of it.


async def test_a_users_cancel_stops_the_response(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = LONG
    async with open_img2img(openai, connector_context) as connector:
        await cut_short(connector, edit(), FakeAttempt(stop_remote_work=True))
    assert statuses(openai) == ["cancelled"]


async def test_a_cancel_while_an_input_is_fetched_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with open_faulty_server(hang()) as faulty, open_img2img(openai, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(edit(image_url=faulty.url)))
                await faulty.received(1)
                nursery.cancel_scope.cancel()
            await faulty.emptied()
    assert openai.requests == []


async def test_the_deadline_stops_the_response(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = LONG
    context = FakeAttempt(0.8, limits=StageLimits(upload=0.1, cdn=0.1, settle=0.1))
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(edit()), context)
    assert statuses(openai) == ["cancelled"]


async def test_a_next_attempt_adopts_the_response_without_its_inputs(
    openai: FakeOpenAI, connector_context: ConnectorContext, images: Faulty
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    payload = edit(images=[f"{images.url}/cat.png?sig=hidden", data_url(PNG), "file-abc123"])
    async with open_img2img(openai, connector_context) as first:
        await cut_short(first, payload, context)
    openai.finish_all()
    async with open_img2img(openai, connector_context) as second:
        result = await run_job(second, job(payload, attempt=2, checkpoint=context.checkpoint))
    assert result.data["approach"] == "background"
    assert (openai.count("create"), openai.billed, len(images.requests)) == (1, 1, 1)
    content = result.raw_request_payload["input"][0]["content"]
    assert content[1]["image_url"] == f"{images.url}/cat.png"
    assert content[2]["image_url"] == f"<{len(data_url(PNG))} characters>"
    assert content[3]["file_id"] == "file-abc123"


@pytest.mark.parametrize("response_id", ["resp_gone", "", None, 7])
async def test_a_response_that_is_gone_is_made_anew_with_all_its_inputs(
    openai: FakeOpenAI, connector_context: ConnectorContext, images: Faulty, response_id: Any
) -> None:
    checkpoint = {"response_id": response_id}
    async with open_img2img(openai, connector_context) as connector:
        await run_job(connector, job(edit(image_url=images.url), attempt=2, checkpoint=checkpoint))
    assert openai.count("create") == 1
    assert next(r for r in openai.requests if r.route == "create").body["input"][0]["content"] == [BLUE, part(PNG)]


async def test_an_upload_that_failed_is_repeated_without_a_generation(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    context = FakeAttempt()
    folder = tmp_path / "assets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file where the folder should be")
    async with open_img2img(openai, connector_context) as connector:
        with pytest.raises(AssetError):
            await run_job(connector, job(edit()), context)
        folder.unlink()
        result = await run_job(connector, job(edit(), attempt=2, retry_count=1, checkpoint=context.checkpoint))
    assert result.output_files
    assert len(stored(folder)) == 1
    assert (openai.count("create"), openai.billed) == (1, 1)


async def test_models_are_the_image_models(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_img2img(openai, connector_context) as connector:
        assert await connector.models() == ["gpt-image-2.6-flare", "gpt-image-2.6-sunburst"]
        assert (await connector.health()).healthy
