"""The fake Gemini speaks the reference: what a wrong client would be told, a test hears too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from emp_trio.testing.gemini import FakeGemini, Script, open_fake_gemini

MODEL = "gemini-nano-banana-2.1"
GENERATE = f"/v1beta/models/{MODEL}:generateContent"


@pytest.fixture
async def gemini() -> AsyncIterator[FakeGemini]:
    async with open_fake_gemini(script=Script(seconds=0)) as gemini:
        yield gemini


@pytest.fixture
async def client(gemini: FakeGemini) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-goog-api-key": gemini.api_key.reveal()}
    async with httpx.AsyncClient(base_url=gemini.base_url, headers=headers, verify=False) as client:
        yield client


def content(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": "a cat"}, *parts]}]} | fields


def interaction(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": "a cat", "background": True, "response_format": {"type": "image"}} | fields


async def test_the_life_of_an_interaction(gemini: FakeGemini, client: httpx.AsyncClient) -> None:
    gemini.script = Script(queued=3600, seconds=3600)
    created = (await client.post("/v1beta/interactions", json=interaction())).json()
    assert created["status"] == "queued"
    assert "steps" not in created
    assert gemini.billed == 0
    gemini.finish_all()
    done = (await client.get(f"/v1beta/interactions/{created['id']}")).json()
    assert done["status"] == "completed"
    assert [step["type"] for step in done["steps"]] == ["thought", "model_output"]
    assert done["steps"][1]["content"][0]["data"].startswith("iVBOR")
    assert done["usage"]["total_tokens"] == 1342
    assert gemini.billed == 1
    assert (await client.post(f"/v1beta/interactions/{created['id']}/cancel")).json()["status"] == "completed"
    assert (await client.delete(f"/v1beta/interactions/{created['id']}")).status_code == 200
    gone = await client.get(f"/v1beta/interactions/{created['id']}")
    assert (gone.status_code, gone.json()["error"]["status"]) == (404, "NOT_FOUND")
    assert gemini.violations == []


async def test_what_is_cancelled_in_the_queue_is_not_billed(gemini: FakeGemini, client: httpx.AsyncClient) -> None:
    for script in (Script(queued=3600), Script(seconds=3600)):
        gemini.script = script
        created = (await client.post("/v1beta/interactions", json=interaction())).json()
        for _ in range(2):
            found = await client.post(f"/v1beta/interactions/{created['id']}/cancel")
            assert found.json()["status"] == "cancelled"
    assert gemini.billed == 1


async def test_a_response_has_drafts_and_a_image(gemini: FakeGemini, client: httpx.AsyncClient) -> None:
    gemini.script = Script(seconds=0, drafts=2, text="Here.")
    (candidate,) = (await client.post(GENERATE, json=content())).json()["candidates"]
    kinds = [("thought" in part, "inlineData" in part) for part in candidate["content"]["parts"]]
    assert kinds == [(True, False), (True, True), (True, True), (False, False), (False, True)]
    assert candidate["finishReason"] == "STOP"
    assert (gemini.billed, gemini.violations) == (1, [])


async def test_a_blocked_prompt_has_no_candidates_and_costs_nothing(
    gemini: FakeGemini, client: httpx.AsyncClient
) -> None:
    gemini.script = Script(seconds=0, block_reason="SAFETY")
    answer = (await client.post(GENERATE, json=content())).json()
    assert answer["promptFeedback"]["blockReason"] == "SAFETY"
    assert "candidates" not in answer
    assert gemini.billed == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        (GENERATE, [], 400, "INVALID_ARGUMENT"),
        (GENERATE, {}, 400, "INVALID_ARGUMENT"),
        (GENERATE, {"contents": []}, 400, "INVALID_ARGUMENT"),
        (GENERATE, content({"inlineData": {"mimeType": "image/png", "data": "data:,x"}}), 400, "INVALID_ARGUMENT"),
        (GENERATE, content({"inlineData": {"mimeType": "text/html", "data": "QUJD"}}), 400, "INVALID_ARGUMENT"),
        (GENERATE, content(generationConfig={"imageConfig": {"aspectRatio": "7:3"}}), 400, "INVALID_ARGUMENT"),
        (GENERATE, content(generationConfig={"imageConfig": {"imageSize": "2k"}}), 400, "INVALID_ARGUMENT"),
        (GENERATE, content(generationConfig={"imageConfig": {"imageSize": "512"}}), 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/imagen-4.0:generateContent", content(), 404, "NOT_FOUND"),
        (
            "/v1beta/models/gemini-3.1-flash:generateContent",
            content(generationConfig={"imageConfig": {"aspectRatio": "1:1"}}),
            400,
            "INVALID_ARGUMENT",
        ),
        ("/v1beta/interactions", [], 400, "INVALID_ARGUMENT"),
        ("/v1beta/interactions", interaction(model=None), 400, "INVALID_ARGUMENT"),
        ("/v1beta/interactions", interaction(model="gemini-1"), 404, "NOT_FOUND"),
        ("/v1beta/interactions", interaction(input=[]), 400, "INVALID_ARGUMENT"),
        ("/v1beta/interactions", interaction(store=False), 400, "INVALID_ARGUMENT"),
        (
            "/v1beta/interactions",
            interaction(input=[{"type": "image", "data": "!", "mime_type": "image/png"}]),
            400,
            "INVALID_ARGUMENT",
        ),
        (
            "/v1beta/interactions",
            interaction(response_format={"type": "image", "aspect_ratio": "7:3"}),
            400,
            "INVALID_ARGUMENT",
        ),
        ("/v1beta/interactions", interaction(stream=True), 501, "UNIMPLEMENTED"),
    ],
)
async def test_wrong_requests_are_told_so_in_the_documented_shape(
    gemini: FakeGemini, client: httpx.AsyncClient, path: str, body: Any, status: int, word: str
) -> None:
    answer = await client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (status, status, word)
    assert error["message"]
    assert (gemini.generations, gemini.billed) == ({}, 0)


FLAT = {"responseFormat": {"image": {"aspectRatio": "1:1"}}, "imageConfig": {"aspectRatio": "1:1"}}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (GENERATE, content(prompt="x"), "undocumented field 'prompt'"),
        (GENERATE, content(model=MODEL), "undocumented field 'model'"),
        (GENERATE, content(generationConfig={"quality": "high"}), "generationConfig 'quality'"),
        (GENERATE, content(generationConfig=FLAT), "both imageConfig and responseFormat"),
        (GENERATE, content(generationConfig={"imageConfig": {"mimeType": "image/png"}}), "imageConfig 'mimeType'"),
        (GENERATE, content({"inline_data": {}}), "part 'inline_data'"),
        (GENERATE, content({"fileData": {"fileUri": "u", "name": "n"}}), "fileData 'name'"),
        (GENERATE, {"contents": [{"parts": [{"text": "x"}]}]}, "without a role"),
        (GENERATE, content(safetySettings=[{"category": "X", "threshold": "OFF"}]), "safety setting"),
        (GENERATE, content(serviceTier="gold"), "service tier 'gold'"),
        ("/v1beta/interactions", interaction(contents=[]), "undocumented field 'contents'"),
        ("/v1beta/interactions", interaction(response_modalities=["IMAGE"]), "'response_modalities'"),
        ("/v1beta/interactions", interaction(generation_config={"image_config": {}}), "'image_config'"),
        ("/v1beta/interactions", interaction(response_format={"type": "text"}), "does not ask for an image"),
        (
            "/v1beta/interactions",
            interaction(response_format={"type": "image", "mime_type": "image/png"}),
            "image/jpeg only",
        ),
        ("/v1beta/interactions", interaction(input=[{"text": "x"}]), "no documented form"),
        ("/v1beta/interactions", interaction(system_instruction={"parts": []}), "not a text"),
        (f"{GENERATE}?key=abc", content(), "the key is in the URL"),
    ],
)
async def test_what_nobody_documents_is_a_violation(
    gemini: FakeGemini, client: httpx.AsyncClient, path: str, body: Any, said: str
) -> None:
    assert (await client.post(path, json=body)).status_code == 200
    assert any(said in violation for violation in gemini.violations)


async def test_keys_are_checked_as_the_service_does(gemini: FakeGemini) -> None:
    async with httpx.AsyncClient(base_url=gemini.base_url, verify=False) as client:
        missing = await client.get("/v1beta/models")
        wrong = await client.get("/v1beta/models", headers={"x-goog-api-key": "AIzaWrong"})
    assert (missing.status_code, missing.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert (wrong.status_code, wrong.json()["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")


async def test_injected_errors_come_in_order_and_then_stop(gemini: FakeGemini, client: httpx.AsyncClient) -> None:
    gemini.inject("models", status=500, listed=True, times=2)
    gemini.inject("models", status=429, word="RESOURCE_EXHAUSTED", details=[{"@type": "x"}])
    gemini.inject("models", status=404, body=b"<html></html>")
    answers = [await client.get("/v1beta/models") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [500, 500, 429, 404, 200]
    assert answers[0].json()[0]["error"]["code"] == 500
    assert answers[2].json()["error"]["details"] == [{"@type": "x"}]
    assert f"models/{MODEL}" in [model["name"] for model in answers[4].json()["models"]]


async def test_an_error_after_the_fact_leaves_the_fact(gemini: FakeGemini, client: httpx.AsyncClient) -> None:
    gemini.inject("generate", status=504, word="DEADLINE_EXCEEDED", after=True)
    assert (await client.post(GENERATE, json=content())).status_code == 504
    assert gemini.billed == 1
