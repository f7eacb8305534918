"""``OpenAIText2ImgConnector`` against the fake API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from emp_trio.assets.content import decode_text
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, Refused, ServiceError
from emp_trio.services.connector import open_connector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.testing.attempt import run_job
from emp_trio.testing.openai import FakeOpenAI, Script
from tests.services.openai.support import open_openai
from tests.services.support import job, stored
from tests.testing.test_png import chunks


async def test_a_prompt_becomes_a_image(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    openai.script = Script(image_bytes=300_000)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat", "size": "1536x1024", "quality": "hd"}))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert len(content) == 300_000
    assert b"IDAT" in chunks(content)
    url = result.data["image_url"]
    assert result.data["mime_type"] == "image/png"
    assert result.data["content_type"] == "image"
    assert result.data["approach"] == "background"
    assert (result.data["size"], result.data["quality"]) == ("1536x1024", "high")
    assert result.data["revised_prompt"] == "A fake image of: a cat"
    assert result.data["image_model"] == "gpt-image-2.6-flare"
    assert result.metadata["saved_asset"] == {
        "filePath": name,
        "fileName": name,
        "fileUrl": url,
        "cdnUrl": url,
        "mimeType": "image/png",
    }
    assert result.output_files[0].metadata["cdn_url"] == url
    assert result.service_metadata["service_job_id"] in openai.generations
    assert openai.billed == 1
    assert len(msgspec.json.encode(result)) < 4000


@pytest.mark.parametrize(("size", "images", "inline"), [(20_000, 1, True), (300_000, 1, False), (20_000, 2, False)])
async def test_one_small_image_is_in_the_result_itself_where_nothing_is_to_be_saved(
    openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path, size: int, images: int, inline: bool
) -> None:
    """What a result can't carry is stored all the same: it has been paid for."""
    openai.script = Script(image_bytes=size, images=images)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat", "save_assets": False}))
    assert result.data["image_url"].startswith("data:image/png;base64,") is inline
    assert len(stored(tmp_path / "assets")) == (0 if inline else images)
    if inline:
        assert len(decode_text(result.data["image_url"])[1]) == size
        rest = msgspec.json.encode(result).replace(result.data["image_url"].encode(), b"")
        assert len(rest) < 4000, "the bytes are there once"


async def test_the_request_is_the_documented_one(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    payload = {
        "description": "a cat",
        "background": "transparent",
        "output_format": "webp",
        "compression": 80,
        "moderation": "low",
        "n": 1,
        "metadata": {"customer": "c1"},
    }
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        await run_job(connector, job(payload))
    assert openai.requests[0].body == {
        "model": "gpt-6-luna",
        "input": "a cat",
        "background": True,
        "store": True,
        "tools": [
            {
                "type": "image_generation",
                "model": "gpt-image-2.6-flare",
                "size": "1024x1024",
                "quality": "medium",
                "background": "transparent",
                "output_format": "webp",
                "output_compression": 80,
                "moderation": "low",
            }
        ],
        "tool_choice": {"type": "image_generation"},
        "metadata": {"customer": "c1", "job_id": "job-1"},
    }


@pytest.mark.parametrize(("asked", "extension"), [("webp", "webp"), ("jpg", "jpeg"), ("png", "png")])
async def test_the_format_is_the_one_that_was_asked_for(
    openai: FakeOpenAI, connector_context: ConnectorContext, asked: str, extension: str
) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat", "output_format": asked}))
    assert result.data["mime_type"] == f"image/{extension}"


async def test_every_image_is_saved(openai: FakeOpenAI, connector_context: ConnectorContext, tmp_path: Path) -> None:
    openai.script = Script(images=2)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat"}))
    assert len(stored(tmp_path / "assets")) == len(result.output_files) == 2
    assert result.data["image_url"] == result.output_files[1].metadata["cdn_url"]


async def test_words_instead_of_a_image_are_a_refusal_that_quotes_them(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    openai.script = Script(images=0, text="I would rather not. " * 100)
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(Refused) as caught:
            await run_job(connector, job({"prompt": "something"}))
    assert "I would rather not. I would" in caught.value.message
    assert len(caught.value.message) < 600
    assert openai.billed == 1


async def test_moderation_of_the_prompt_is_a_refusal(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.inject(
        "create",
        status=400,
        type="image_generation_user_error",
        code="moderation_blocked",
        message="Your request was rejected by the safety system.",
        extra={"moderation_details": {"moderation_stage": "input", "categories": ["violence"]}},
    )
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(Refused, match="rejected by the safety system") as caught:
            await run_job(connector, job({"prompt": "something"}))
    assert caught.value.reason == "violence_detected"
    assert (openai.count("create"), openai.billed) == (1, 0)


async def test_a_wrong_size_is_not_a_refusal(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="huge") as caught:
            await run_job(connector, job({"prompt": "a cat", "size": "huge"}))
    assert not isinstance(caught.value, Refused)
    assert (caught.value.type, caught.value.retry) == ("validation_error", False)


async def test_a_retired_model_is_replaced_and_said(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as plain:
        settings = msgspec.structs.replace(plain.settings, image_model="dall-e-3")
    async with open_connector(OpenAIText2ImgConnector, settings, connector_context) as connector:
        with capture_logs() as logs:
            result = await run_job(connector, job({"prompt": "a cat"}))
    (warning,) = result.metadata["warnings"]
    assert warning.startswith("dall-e-3 was shut down on 2026-05-12")
    assert {"event": warning, "log_level": "warning"} in logs
    assert openai.requests[0].body["tools"][0]["model"] == "gpt-image-2.6-flare"


@pytest.mark.parametrize("payload", [{}, {"prompt": ""}, {"prompt": ["a cat"]}])
async def test_no_prompt_costs_nothing(
    openai: FakeOpenAI, connector_context: ConnectorContext, payload: dict[str, Any]
) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        with pytest.raises(InvalidJob):
            await run_job(connector, job(payload))
    assert openai.requests == []


async def test_models_are_the_image_models(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    async with open_openai(OpenAIText2ImgConnector, openai, connector_context) as connector:
        assert await connector.models() == ["gpt-image-2.6-flare", "gpt-image-2.6-sunburst"]
