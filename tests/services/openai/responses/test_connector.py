"""``OpenAIResponsesConnector`` against the fake API."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from tests.services.openai.support import open_openai
from tests.services.support import job, stored
from tests.testing.test_png import chunks

IMAGE_TOOL = {
    "tools": [{"type": "image_generation", "model": "gpt-image-2.6-flare"}],
    "tool_choice": {"type": "image_generation"},
}


async def test_text_is_returned_and_saved(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(text="Grüße aus dem Fälscher")
    context = FakeAttempt()
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "hello", "instructions": "be brief"}), context)
    assert result.data["text"] == result.data["text_content"] == "Grüße aus dem Fälscher"
    assert result.data["content_type"] == "text"
    assert result.data["openai_response_id"] in openai.generations
    assert result.data["usage"]["total_tokens"] == 50
    assert result.data["usage"]["image"] is None
    ((name, content),) = stored(tmp_path / "assets").items()
    assert content.decode() == "Grüße aus dem Fälscher"
    assert name.endswith(".txt")
    assert result.metadata["saved_asset"]["fileName"] == name == result.output_files[0].filename
    assert result.output_files[0].mime_type.startswith("text/plain")
    assert "truncated" not in result.data
    assert openai.billed == 1
    assert openai.requests[0].body == result.raw_request_payload
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] == 100


async def test_text_is_not_saved_where_the_job_says_so(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "hello", "save_assets": False}))
    assert result.data["text"]
    assert result.output_files == ()
    assert stored(tmp_path / "assets") == {}


async def test_images_are_saved_and_their_bytes_are_nowhere_in_the_result(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(images=3, image_bytes=20_000, text="Three cats.")
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "three cats"} | IMAGE_TOOL))
    found = stored(tmp_path / "assets")
    assert len(found) == len(result.output_files) == 3
    assert all(b"IDAT" in chunks(content) for content in found.values())
    assert result.data["image_url"] == result.output_files[-1].metadata["cdn_url"]
    assert (result.data["content_type"], result.data["mime_type"]) == ("image", "image/png")
    assert result.data["text_description"] == "Three cats."
    assert result.data["usage"]["image"] == {"input_tokens": 15, "output_tokens": 1056}
    assert result.data["usage"]["image_model"] == "gpt-image-2.6-flare"
    raw = result.data["raw_output"]
    assert raw["id"] == result.data["openai_response_id"]
    images = [item for item in raw["output"] if item["type"] == "image_generation_call"]
    assert [image["result"] for image in images] == ["<base64 image, 20000 bytes>"] * 3
    assert len(msgspec.json.encode(result)) < 6000


async def test_file_bytes_of_the_request_are_not_kept(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    image = "data:image/png;base64," + "A" * 40_000
    parts = [
        {"type": "input_text", "text": "what is it?"},
        {"type": "input_image", "detail": "auto", "image_url": image},
    ]
    payload = {"input": [{"type": "message", "role": "user", "content": parts}]}
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job(payload))
    assert openai.requests[0].body["input"][0]["content"][1]["image_url"] == image
    assert "<base64 image/png, 30000 bytes>" in str(result.raw_request_payload)
    assert len(msgspec.json.encode(result)) < 4000


async def test_cut_off_text_is_a_result_that_says_so(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(status="incomplete", text="Once upon a")
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "a tale", "max_output_tokens": 16}))
    assert result.success
    assert result.data["text"] == "Once upon a"
    assert result.data["truncated"] is True


@pytest.mark.parametrize(
    ("script", "payload", "quoted"),
    [
        (Script(refusal="I will not help with that."), {}, "I will not help"),
        (Script(status="incomplete", incomplete_reason="content_filter", text="Onc"), {}, "content filter"),
        (Script(status="failed", error={"code": "bio_policy", "message": "Not this."}), {}, "Not this."),
        (Script(images=0, text="I would rather describe it."), IMAGE_TOOL, "I would rather describe it."),
        (Script(image_error={"code": "moderation_blocked", "message": "Blocked."}), IMAGE_TOOL, "Blocked."),
    ],
)
async def test_refusals_in_all_their_forms(
    openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, payload: dict[str, object], quoted: str
) -> None:
    openai.script = script
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with pytest.raises(Refused, match=quoted) as caught:
            await run_job(connector, job({"input": "something"} | payload))
    assert not caught.value.retry
    assert openai.billed == 1


@pytest.mark.parametrize(
    ("script", "kind", "retry"),
    [
        (Script(status="failed"), "service_error", True),
        (Script(status="failed", error={"code": "rate_limit_exceeded", "message": "m"}), "rate_limit", True),
        (Script(status="failed", error={"code": "invalid_image", "message": "m"}), "validation_error", False),
        (Script(status="failed", error={"code": "something_new", "message": "m"}), "service_error", False),
        (Script(status="incomplete", text=""), "response_error", False),
        (Script(status="cancelled"), "service_error", False),
        (Script(text="", extra=[{"type": "function_call", "name": "f"}]), "validation_error", False),
    ],
)
async def test_failures_in_all_their_forms(
    openai: FakeOpenAI, connector_context: ConnectorContext, script: Script, kind: str, retry: bool
) -> None:
    openai.script = script
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job({"input": "something"}))
    assert (caught.value.type, caught.value.retry) == (kind, retry)


async def test_a_bad_request_is_refused_before_anything_is_billed(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="temperature") as caught:
            await run_job(connector, job({"input": "hi", "temperature": 0.5}))
    assert (caught.value.status, caught.value.reason, caught.value.retry) == (400, "unsupported_operation", False)
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")
    assert openai.billed == 0
    assert openai.count("create") == 1


async def test_items_of_unknown_types_are_skipped_and_named(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(text="hi", extra=[{"type": "hologram", "data": "?"}, {"type": "reasoning"}])
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "hi"}))
    assert result.data["text"] == "hi"
    assert result.metadata["skipped_output"] == ["hologram"]


async def test_what_is_no_wish_for_streaming_is_left_out_and_said(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"input": "hi", "stream": "yes"}))
    assert "stream" in result.metadata["warnings"][0]


async def test_an_empty_payload_costs_nothing(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        with pytest.raises(InvalidJob):
            await run_job(connector, job({"ctx": {}}))
    assert openai.requests == []


async def test_models_leave_out_image_models(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_openai(OpenAIResponsesConnector, openai, connector_context) as connector:
        assert await connector.models() == ["gpt-6-luna", "gpt-6.2-sol", "gpt-4.1"]
