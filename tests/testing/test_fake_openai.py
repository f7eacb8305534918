"""The fake OpenAI speaks the reference: what a wrong client would be told, a test hears too."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
import trio

from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.testing.png import make_png

PHOTO = make_png()
MASK = make_png(alpha=True)
IMAGE = {"type": "image_generation", "model": "gpt-image-2.6-flare"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-6-luna", "input": "hi", "background": True, "store": True} | fields


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def message(**image: Any) -> dict[str, Any]:
    """A message with an image."""
    return {"type": "message", "role": "user", "content": [{"type": "input_image"} | image]}


def edit(image: bytes, mask: dict[str, str]) -> dict[str, Any]:
    """The fields of an edit with a mask."""
    return {"input": [message(image_url=uri(image))], "tools": [IMAGE | {"input_image_mask": mask}]}


async def test_a_masked_edit_is_taken(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    fields = {"input": [message(image_url=uri(PHOTO), detail="auto")]}
    tool = IMAGE | {"action": "edit", "input_image_mask": {"image_url": uri(MASK)}}
    done = (await client.post("/responses", json=body(tools=[tool], background=False, **fields))).json()
    assert done["output"][1]["action"] == "edit"
    assert openai.violations == []


async def test_the_life_of_a_background_response(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(queued=3600, seconds=3600)
    created = (await client.post("/responses", json=body(metadata={"a": "b"}))).json()
    assert created["status"] == "queued"
    assert created["output"] == []
    assert created["usage"] is None
    assert created["metadata"] == {"a": "b"}
    assert openai.billed == 0
    openai.finish_all()
    done = (await client.get(f"/responses/{created['id']}")).json()
    assert done["status"] == "completed"
    assert done["output"][-1]["content"][0]["type"] == "output_text"
    assert done["usage"]["total_tokens"] == 50
    assert openai.billed == 1
    assert (await client.post(f"/responses/{created['id']}/cancel")).json()["status"] == "completed"
    assert (await client.delete(f"/responses/{created['id']}")).json()["deleted"] is True
    gone = await client.get(f"/responses/{created['id']}")
    assert gone.status_code == 404
    assert gone.json()["error"]["message"] == f"Response with id '{created['id']}' not found."
    assert openai.violations == []


async def test_a_response_moves_on_with_time(
    openai: FakeOpenAI, client: httpx.AsyncClient, mock_clock: trio.testing.MockClock
) -> None:
    openai.script = Script(queued=0.4, seconds=0.4)
    created = (await client.post("/responses", json=body())).json()
    seen = [created["status"]]
    for _ in range(2):
        mock_clock.jump(0.5)
        seen.append((await client.get(f"/responses/{created['id']}")).json()["status"])
    assert seen == ["queued", "in_progress", "completed"]


async def test_what_is_cancelled_in_the_queue_is_not_billed(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    for script in (Script(queued=3600), Script(seconds=3600)):
        openai.script = script
        created = (await client.post("/responses", json=body())).json()
        for _ in range(2):
            assert (await client.post(f"/responses/{created['id']}/cancel")).json()["status"] == "cancelled"
    assert openai.billed == 1


async def test_a_foreground_response_comes_finished_and_cannot_be_cancelled(
    openai: FakeOpenAI, client: httpx.AsyncClient
) -> None:
    created = (await client.post("/responses", json=body(background=False))).json()
    assert created["status"] == "completed"
    assert (await client.post(f"/responses/{created['id']}/cancel")).status_code == 400


async def test_a_request_can_bring_its_own_script(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    script = {"status": "incomplete", "seconds": 0, "text": "Onc"}
    created = (await client.post("/responses", json=body(metadata={"fake_openai": json.dumps(script)}))).json()
    assert created["status"] == "incomplete"
    assert created["incomplete_details"] == {"reason": "max_output_tokens"}
    wrong = await client.post("/responses", json=body(metadata={"fake_openai": '{"colour": 1}'}))
    assert wrong.status_code == 400
    assert "colour" in wrong.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": "gpt-image-2.6-flare"}, "model", "invalid_value"),
        ({"model": "gpt-4-turbo"}, "model", "model_not_found"),
        ({"input": None}, "input", "invalid_type"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": [{"type": "message", "role": "user", "content": [{"type": "text", "text": "x"}]}]}, None, None),
        ({"background": "yes"}, "background", "invalid_type"),
        ({"max_output_tokens": True}, "max_output_tokens", "invalid_type"),
        ({"temperature": 0.5}, "temperature", "unsupported_parameter"),
        ({"tools": [IMAGE | {"model": "dall-e-3"}]}, "model", "invalid_value"),
        ({"tools": [IMAGE | {"quality": "standard"}]}, "tools[0].quality", "invalid_value"),
        ({"tools": [IMAGE | {"size": "big"}]}, "size", "invalid_value"),
        ({"tools": [IMAGE | {"output_compression": 50}]}, "tools[0].output_compression", "invalid_value"),
        ({"tools": [IMAGE | {"background": "transparent", "output_format": "jpeg"}]}, "tools[0].background", None),
        ({"tools": [IMAGE | {"partial_images": 2}]}, "tools[0].partial_images", "invalid_value"),
        ({"tools": [IMAGE | {"input_fidelity": "high"}]}, "tools[0].input_fidelity", "unsupported_parameter"),
        ({"tools": [{}]}, "tools[0].type", None),
        ({"tools": [IMAGE | {"action": "edit"}]}, "tools[0].action", "invalid_value"),
        (edit(MASK, {"image_url": uri(MASK), "file_id": "file-1"}), "tools[0].input_image_mask", "invalid_value"),
        (edit(PHOTO, {"image_url": uri(PHOTO)}), "tools[0].input_image_mask", "invalid_image_file"),
        (edit(make_png(32, 32), {"image_url": uri(MASK)}), "tools[0].input_image_mask", "invalid_image_file"),
        ({"input": [message()]}, "input[0].content[0]", "invalid_value"),
        ({"input": [message(image_url={"url": "https://x/y"})]}, "input[0].content[0].image_url", "invalid_type"),
        ({"input": [message(image_url="ftp://x/y")]}, "input[0].content[0]", "invalid_image_url"),
        ({"input": [message(image_url="data:image/png;base64,?")]}, "input[0].content[0]", "invalid_base64_image"),
        ({"input": [message(image_url="https://x/y", url="z")]}, "input[0].content[0].url", "unknown_parameter"),
        ({"input": [{"type": "message", "role": "robot", "content": "hi"}]}, "input[0].role", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"tool_choice": {"type": "image_generation"}}, "tool_choice", "invalid_value"),
        ({"tool_choice": "please"}, "tool_choice", "invalid_value"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", None),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "invalid_value"),
        ({"metadata": {"a": 7}}, "metadata.a", "invalid_value"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "conversation", None),
    ],
)
async def test_wrong_requests_are_told_so_in_the_documented_shape(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = await client.post("/responses", json=body(**fields))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code
    assert openai.generations == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt_text": "x"}, "undocumented field 'prompt_text'"),
        ({"store": False}, "background without store: true"),
        ({"user": "u"}, "user is deprecated"),
        ({"tools": [{"type": "image_generation"}]}, "does not say its model"),
        ({"tools": [IMAGE | {"style": "vivid"}]}, "undocumented option 'style'"),
        ({"input": [{"role": "user", "content": "hi"}]}, "without type: message"),
        ({"input": [message(file_id="file-1")]}, "without detail"),
        ({"input": [message(file_id="file-1") | {"name": "x"}]}, "field 'name' of an input message"),
        ({"reasoning": {"budget": 7}}, "undocumented field 'reasoning.budget'"),
    ],
)
async def test_what_nobody_documents_is_a_violation(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], said: str
) -> None:
    assert (await client.post("/responses", json=body(**fields))).status_code == 200
    assert any(said in violation for violation in openai.violations)


async def test_headers_are_checked_too(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    await client.get("/models", headers={"idempotency-key": "1", "x-client-request-id": "x" * 513})
    assert len(openai.violations) == 2


async def test_a_wrong_key_is_echoed_in_part_as_the_service_does(openai: FakeOpenAI) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        headers = {"authorization": "Bearer sk-wrong-key-1234"}
        answer = await client.get(f"{openai.base_url}/models", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "1234" in answer.json()["error"]["message"]
    assert "wrong-key-1234" not in answer.json()["error"]["message"]


async def test_injected_errors_come_in_order_and_then_stop(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    openai.inject("models", status=500, times=2, headers={"x-should-retry": "true"})
    openai.inject("models", status=429, code="slow_down")
    statuses = [(await client.get("/models")).status_code for _ in range(4)]
    assert statuses == [500, 500, 429, 200]


async def test_an_error_after_the_fact_leaves_the_fact(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    openai.inject("create", status=500, after=True)
    assert (await client.post("/responses", json=body())).status_code == 500
    assert openai.billed == 1


async def test_every_answer_has_the_documented_headers(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/models"), await client.get("/responses/none"), await client.post("/responses")]
    for answer in answers:
        assert answer.headers["x-request-id"].startswith("req_")
        assert "x-ratelimit-remaining-tokens" in answer.headers
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


async def test_images_say_generating_when_they_are_done(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, images=2)
    done = (await client.post("/responses", json=body(tools=[IMAGE | {"size": "auto"}]))).json()
    images = [item for item in done["output"] if item["type"] == "image_generation_call"]
    assert [image["status"] for image in images] == ["generating"] * 2
    assert all(image["result"].startswith("iVBOR") for image in images)
    assert done["tool_usage"]["image_gen"]["output_tokens"] == 1056
