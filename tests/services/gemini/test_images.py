"""``GeminiConnector`` against the fake API: what it asks for, and what becomes of the answer."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InputUnavailable, InvalidJob
from emp_trio.testing.attempt import run_job
from emp_trio.testing.gemini import FakeGemini, Script
from emp_trio.testing.png import make_png
from emp_trio.testing.serve import open_server
from tests.services.gemini.support import forms, open_gemini
from tests.services.support import job, stored

PNG = make_png(seed=7)
BASE64 = base64.b64encode(PNG).decode()


def image_inputs(gemini: FakeGemini) -> list[tuple[str, bytes]]:
    """Type and bytes of every image in the last request, whatever its form."""
    body = next(request.body for request in reversed(gemini.requests) if request.body)
    if "input" in body:
        parts = body["input"] if isinstance(body["input"], list) else []
        return [(part["mime_type"], base64.b64decode(part["data"])) for part in parts if "data" in part]
    inline = [part["inlineData"] for content in body["contents"] for part in content["parts"] if "inlineData" in part]
    return [(part["mimeType"], base64.b64decode(part["data"])) for part in inline]


@forms
async def test_a_prompt_becomes_a_image(
    gemini: FakeGemini, connector_context: ConnectorContext, tmp_path: Path, api: str
) -> None:
    gemini.script = Script(image_bytes=300_000, text="Here it is.", declared="image/jpeg", drafts=2)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        result = await run_job(connector, job({"prompt": "a cat"}))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert (len(content), name.endswith(".png")) == (300_000, True)  # its bytes count, not what it is said to be
    url = result.data["image_url"]
    assert result.data["mime_type"] == "image/png"
    assert result.data["content_type"] == "image"
    assert result.data["text"] == "Here it is."
    assert result.data["approach"] == api
    assert result.data["model_used"].startswith("gemini-nano-banana-2.1")
    assert result.data["usage"] == {
        "input_tokens": 12,
        "output_tokens": 1290,
        "total_tokens": 1342,
        "cached_tokens": 3,
        "reasoning_tokens": 40,
        "model": result.data["model_used"],
    }
    assert result.metadata["saved_asset"] == {
        "filePath": name,
        "fileName": name,
        "fileUrl": url,
        "cdnUrl": url,
        "mimeType": "image/png",
    }
    assert (result.metadata["service"], result.metadata["api_version"]) == ("gemini", "v1beta")
    assert result.output_files[0].metadata["cdn_url"] == url
    assert result.service_metadata["service_job_id"] in gemini.generations
    assert gemini.billed == 1
    assert "maybe_billed_before" not in result.metadata
    assert len(msgspec.json.encode(result)) < 5000


@forms
async def test_all_images_are_saved_and_the_last_one_is_the_result(
    gemini: FakeGemini, connector_context: ConnectorContext, tmp_path: Path, api: str
) -> None:
    gemini.script = Script(images=3, drafts=2)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        result = await run_job(connector, job({"prompt": "three cats"}))
    assert len(stored(tmp_path / "assets")) == len(result.output_files) == 3
    assert result.data["image_url"] == result.output_files[2].metadata["cdn_url"]
    last = Path(tmp_path / "assets" / result.output_files[2].path).read_bytes()
    assert last == make_png(seed=2)


@forms
async def test_what_is_kept_of_request_and_answer_has_no_bytes(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    gemini.script = Script(text="Hello.")
    payload = {"prompt": "a cat", "images": [BASE64, f"data:image/png;base64,{BASE64}"]}
    async with open_gemini(gemini, connector_context, api=api) as connector:
        result = await run_job(connector, job(payload))
    kept = msgspec.json.encode(result).decode()
    assert BASE64[:40] not in kept
    assert "iVBOR" not in kept
    assert "a thought signature" not in kept
    assert base64.b64encode(b"a thought signature").decode() not in kept
    assert "bytes>" in msgspec.json.encode(result.metadata["raw_service_output"]).decode()
    assert "Hello." in msgspec.json.encode(result.metadata["raw_service_output"]).decode()
    assert "a cat" in msgspec.json.encode(result.raw_request_payload).decode()


# What reaches the API.

OPTIONS = {
    "prompt": "a cat",
    "aspect_ratio": "16:9",
    "image_size": "2k",
    "temperature": 0.4,
    "seed": 7,
    "maxOutputTokens": 4000,
    "system_instruction": "Draw in ink.",
    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
    "service_tier": "flex",
}


async def test_options_reach_an_interaction(gemini: FakeGemini, connector_context: ConnectorContext) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        await run_job(connector, job(OPTIONS))
    assert gemini.requests[0].body == {
        "model": "gemini-nano-banana-2.1",
        "input": "a cat",
        "response_format": {"type": "image", "delivery": "inline", "aspect_ratio": "16:9", "image_size": "2K"},
        "background": True,
        "store": True,
        "generation_config": {"temperature": 0.4, "seed": 7, "max_output_tokens": 4000},
        "system_instruction": "Draw in ink.",
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
        "service_tier": "flex",
    }


async def test_options_reach_generate_content(gemini: FakeGemini, connector_context: ConnectorContext) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        await run_job(connector, job(OPTIONS | {"api": "generate_content", "model": "gemini-3-pro-image"}))
    (request,) = gemini.requests
    assert request.path == "/v1beta/models/gemini-3-pro-image:generateContent"
    assert request.body == {
        "contents": [{"role": "user", "parts": [{"text": "a cat"}]}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "temperature": 0.4,
            "seed": 7,
            "maxOutputTokens": 4000,
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        },
        "systemInstruction": {"parts": [{"text": "Draw in ink."}]},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
        "serviceTier": "flex",
    }


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"candidate_count": 2}, "generationConfig.candidateCount"),
        ({"store": False}, "store: false"),
        (
            {
                "prompt": None,
                "contents": [
                    {"role": "user", "parts": [{"text": "a cat"}]},
                    {"role": "model", "parts": [{"text": "ok", "thought_signature": "c2ln"}]},
                    {"role": "user", "parts": [{"text": "now blue"}]},
                ],
            },
            "several contents",
        ),
        (
            {
                "prompt": None,
                "contents": [{"parts": [{"text": "x"}, {"fileData": {"mimeType": "a/b", "fileUri": "u"}}]}],
            },
            "a part of type a/b",
        ),
    ],
)
async def test_what_an_interaction_has_no_place_for_goes_the_other_way(
    gemini: FakeGemini, connector_context: ConnectorContext, payload: dict[str, Any], why: str
) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a cat"} | payload))
    assert result.data["approach"] == "generate_content"
    assert result.metadata["warnings"] == [f"generateContent is used: an interaction has no documented place for {why}"]
    assert gemini.count("create") == 0


@forms
@pytest.mark.parametrize(
    "payload",
    [
        {"images": [BASE64]},
        {"image": f"data:image/png;base64,{BASE64}"},
        {"image_url": f"data:image/jpeg;base64,{BASE64}"},
        {"images": [{"image_url": f"data:image/png;base64,{BASE64}"}]},
        {"inline_data": {"mime_type": "image/png", "data": BASE64}},
        {"a": [{"b": {"inline_data": {"image_url": f"data:image/png;base64,{BASE64}"}}}]},
        {"prompt": None, "contents": [{"parts": [{"text": "x"}, {"inline_data": {"data": f"data:;base64,{BASE64}"}}]}]},
        {"prompt": None, "contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": BASE64}}]}]},
        {"prompt": None, "contents": [{"role": "user", "parts": [{"text": "blue"}]}], "images": [BASE64]},
    ],
)
async def test_images_reach_the_api_wherever_the_payload_has_them(
    gemini: FakeGemini, connector_context: ConnectorContext, payload: dict[str, Any], api: str
) -> None:
    async with open_gemini(gemini, connector_context, api=api) as connector:
        await run_job(connector, job({"prompt": "blue"} | payload))
    assert image_inputs(gemini) == [("image/png", PNG)]


@forms
async def test_images_at_urls_are_fetched_and_their_type_is_that_of_their_bytes(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    async def image(request: Request) -> Response:
        return Response(PNG, media_type="image/webp")

    async with (
        open_server(Starlette(routes=[Route("/a.webp", image)])) as url,
        open_gemini(gemini, connector_context, api=api) as connector,
    ):
        source = {"inline_data": {"image_url": f"{url}/a.webp?sig=topsecret"}}
        contents = [{"parts": [{"text": "blue"}, source]}]
        result = await run_job(connector, job({"contents": contents}))
    assert image_inputs(gemini) == [("image/png", PNG)]
    assert "topsecret" not in msgspec.json.encode(result).decode()
    assert f"<{url}/a.webp>" in msgspec.json.encode(result.raw_request_payload).decode()


@forms
async def test_a_file_that_was_uploaded_before_is_passed_through(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    file = {"mime_type": "image/png", "file_uri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}
    async with open_gemini(gemini, connector_context, api=api) as connector:
        await run_job(connector, job({"prompt": "blue", "file_data": file}))
    body = gemini.requests[0].body
    if api == "interactions":
        assert body["input"] == [{"type": "text", "text": "blue"}, {"type": "image", "uri": file["file_uri"]}]
    else:
        assert body["contents"][0]["parts"][1] == {
            "fileData": {"mimeType": file["mime_type"], "fileUri": file["file_uri"]}
        }


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, "no prompt"),
        ({"prompt": ""}, "no prompt"),
        ({"prompt": ["a cat"]}, "no prompt"),
        ({"contents": "a cat"}, "payload.contents must be"),
        ({"contents": [{"parts": []}]}, r"payload.contents\[0\].parts must be"),
        ({"contents": [{"parts": [{"text": 7}]}]}, "text is a str"),
        ({"contents": [{"parts": [{"text": "x"}, {"fileData": {}}]}]}, "file_data must be"),
        ({"prompt": "x", "api": "vertex"}, "payload.api must be one of interactions, generate_content"),
        ({"prompt": "x", "model": "../../files"}, "payload.model must be the name of a model"),
        ({"prompt": "x", "images": [7]}, "payload.images must be"),
        ({"prompt": "x", "inline_data": {"mime_type": "image/png"}}, "payload.inline_data must be"),
        ({"prompt": "x", "image": base64.b64encode(b"<html>no</html>").decode()}, "accepted are"),
        ({"prompt": "x", "image": "!!!"}, "neither an http"),
        ({"prompt": "x", "image": "http://127.0.0.1:1/x"}, None),
    ],
)
async def test_what_cannot_work_costs_nothing(
    gemini: FakeGemini, connector_context: ConnectorContext, payload: dict[str, Any], said: str | None
) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(InvalidJob if said else InputUnavailable, match=said):
            await run_job(connector, job(payload))
    assert gemini.requests == []
