"""The Images API of the fake OpenAI, by HTTP (OpenAI reference 8 and 9)."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
import trio

from emp_trio.testing.openai import FakeOpenAI, Script, StreamScript
from emp_trio.testing.openai.image_info import looks_of
from emp_trio.testing.openai.media import make_image
from emp_trio.testing.png import make_png

IMAGE = make_png()
MASK = make_png(alpha=True)
JPEG = make_image("jpeg", seed=1)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-image-2.6-flare", "prompt": "a cat"} | fields


def data_uri(data: bytes, format: str = "png") -> str:
    return f"data:image/{format};base64,{base64.b64encode(data).decode()}"


def png(data: bytes = IMAGE, name: str = "a.png", type: str = "image/png") -> tuple[str, bytes, str]:
    return (name, data, type)


def events(text: str) -> list[Any]:
    frames = [frame.partition("data: ")[2] for frame in text.split("\n\n") if "data: " in frame]
    return [json.loads(frame) for frame in frames]


async def test_as_many_images_as_asked_for(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=0, image_bytes=12_346)
    for output_format in ("png", "jpeg", "webp", "gif"):
        asked = body(n=2, output_format=output_format, size="2560x1440", quality="max")
        answer = (await client.post("/images/generations", json=asked)).json()
        assert answer["output_format"] == output_format
        assert (answer["size"], answer["quality"]) == ("2560x1440", "max")
        images = [base64.b64decode(entry["b64_json"]) for entry in answer["data"]]
        assert [len(image) for image in images] == [12_346, 12_346]
        assert images[0] != images[1]
        looks = looks_of(images[0])
        assert output_format == "gif" or (looks is not None and looks.format == output_format)
    assert answer["usage"]["total_tokens"] == 1071
    assert openai.billed == 8
    assert openai.violations == []


async def test_a_streamed_image(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    answer = await client.post("/images/generations", json=body(stream=True, partial_images=2))
    *partials, final = events(answer.text)
    assert [partial["type"] for partial in partials] == ["image_generation.partial_image"] * 2
    assert [partial["partial_image_index"] for partial in partials] == [0, 1]
    assert final["type"] == "image_generation.completed"
    assert final["usage"]["output_tokens"] == 1056
    assert len({event["b64_json"] for event in (*partials, final)}) == 3
    openai.script = Script(seconds=0, stream=StreamScript(partial_images=0))
    form = {"image[]": png()}
    answer = await client.post(
        "/images/edits", data=body(stream="true", partial_images="1"), files=form, headers={"accept": "*/*"}
    )
    assert [event["type"] for event in events(answer.text)] == ["image_edit.completed"]
    assert openai.billed == 2
    assert openai.violations == []


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(seconds=0, status="failed"), 500, "server_error"),
        (Script(seconds=0, image_error={"code": "moderation_blocked", "message": "No."}), 400, "moderation_blocked"),
    ],
)
async def test_an_error_is_an_answer_or_an_event(
    openai: FakeOpenAI, client: httpx.AsyncClient, script: Script, status: int, code: str
) -> None:
    openai.script = script
    answer = await client.post("/images/generations", json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    answer = await client.post("/images/generations", json=body(stream=True, partial_images=1))
    partial, last = events(answer.text)
    assert partial["type"] == "image_generation.partial_image"
    assert (last["type"], last["error"]["code"]) == ("error", code)
    assert openai.billed == 0


async def test_a_stream_that_is_left_makes_no_more_images(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    openai.script = Script(seconds=3600)
    with trio.fail_after(60):
        async with client.stream("POST", "/images/generations", json=body(n=4, stream=True)):
            pass
        while openai.billed == 4:
            await trio.lowlevel.checkpoint()
    assert openai.billed == 1


async def test_an_edit_as_a_form_and_as_json(openai: FakeOpenAI, client: httpx.AsyncClient) -> None:
    files = [("image[]", png()), ("image[]", png(JPEG, "b.jpg", "image/jpeg")), ("mask", png(MASK, "m.png"))]
    answer = await client.post("/images/edits", data=body(n="2", output_format="webp"), files=files)
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 2
    request = openai.requests[-1].body
    assert request["n"] == 2
    assert [image.filename for image in request["images"]] == ["a.png", "b.jpg"]
    assert request["images"][0].data == IMAGE
    assert request["mask"].data == MASK
    images = [{"image_url": data_uri(IMAGE)}, {"file_id": "file-1"}, {"image_url": "https://example.com/a.png"}]
    asked = body(images=images, mask={"image_url": data_uri(MASK)}, moderation="low")
    assert (await client.post("/images/edits", json=asked)).status_code == 200
    assert openai.billed == 3
    assert openai.violations == []


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "missing_required_parameter"),
        ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
        ({"model": "dall-e-3"}, "model", "invalid_value"),
        ({"model": "gpt-image-1"}, "model", "invalid_value"),
        ({"model": "gpt-6-luna"}, "model", "invalid_value"),
        ({"n": 0}, "n", None),
        ({"n": 11}, "n", None),
        ({"n": "2"}, "n", "invalid_type"),
        ({"size": "1000x1024"}, "size", "invalid_value"),
        ({"size": "1024x1000"}, "size", "invalid_value"),
        ({"size": "3840x1024"}, "size", "invalid_value"),
        ({"size": "512x512"}, "size", "invalid_value"),
        ({"size": "3840x2400"}, "size", "invalid_value"),
        ({"size": "3856x1296"}, "size", "invalid_value"),
        ({"model": "gpt-image-1.5", "size": "2048x2048"}, "size", "invalid_value"),
        ({"quality": "standard"}, "quality", "invalid_value"),
        ({"model": "gpt-image-2", "quality": "xhigh"}, "quality", "invalid_value"),
        ({"background": "transparent", "output_format": "jpeg"}, "background", "invalid_value"),
        ({"output_format": "bmp"}, "output_format", "invalid_value"),
        ({"model": "gpt-image-2.5-flare", "output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_format": "svg", "n": 2}, "output_format", "invalid_value"),
        ({"output_compression": 50}, "output_compression", "invalid_value"),
        ({"output_compression": 101, "output_format": "jpeg"}, "output_compression", "invalid_value"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"partial_images": 4, "stream": True}, "partial_images", "invalid_value"),
        ({"moderation": "none"}, "moderation", "invalid_value"),
        ({"response_format": "b64_json"}, "response_format", "unknown_parameter"),
        ({"style": "vivid"}, "style", "unknown_parameter"),
    ],
)
async def test_wrong_requests_are_told_so(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], param: str, code: str | None
) -> None:
    answer = await client.post("/images/generations", json=body(**fields))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert (error["type"] == "image_generation_user_error") == (param in ("model", "size"))
    assert openai.billed == 0


@pytest.mark.parametrize(
    ("files", "fields", "param", "code"),
    [
        ([], {}, "image", "missing_required_parameter"),
        ([("image[]", png())] * 17, {}, "image", "array_above_max_length"),
        ([("image", png())] * 2, {}, "image", "duplicate_parameter"),
        ([("image", png(b"no image"))], {}, "image[0]", "invalid_image_file"),
        ([("image", png(name="a"))], {}, "image[0]", "invalid_image_file"),
        ([("image", png(type="image/jpeg"))], {}, "image[0]", "invalid_image_file"),
        ([("image", png()), ("mask", png())], {}, "mask", "invalid_image_file"),
        ([("image", png()), ("mask", png(make_png(32, 32, alpha=True)))], {}, "mask", "invalid_image_file"),
        ([("image", png()), ("mask", png(MASK)), ("markup", png(MASK))], {}, "markup", "invalid_value"),
        ([("image", png()), ("markup", png(MASK))], {"model": "gpt-image-2"}, "markup", "unsupported_parameter"),
        ([("image", png())], {"moderation": "low"}, "moderation", "unknown_parameter"),
        ([("image", png())], {"input_fidelity": "high"}, "input_fidelity", "unsupported_parameter"),
        ([("image", png())], {"n": "two"}, "n", "invalid_type"),
        ([("image", png())], {"stream": "yes"}, "stream", "invalid_type"),
    ],
)
async def test_wrong_forms_are_told_so(
    client: httpx.AsyncClient,
    openai: FakeOpenAI,
    files: list[tuple[str, Any]],
    fields: dict[str, Any],
    param: str,
    code: str,
) -> None:
    form = [*files, *((name, (None, value)) for name, value in body(**fields).items())]
    answer = await client.post("/images/edits", files=form)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)
    assert openai.billed == 0


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ({}, "invalid_value"),
        ({"image_url": data_uri(IMAGE), "file_id": "file-1"}, "invalid_value"),
        ({"image_url": {"url": "https://example.com/a.png"}}, "invalid_value"),
        ({"image_url": "http://example.com/a.png"}, "invalid_image_url"),
        ({"image_url": "data:image/png;base64,???"}, "invalid_base64_image"),
        ({"image_url": data_uri(IMAGE, "jpeg")}, "invalid_image_format"),
        ({"image_url": "data:image/png;base64," + "A" * 20_971_520}, "string_above_max_length"),
    ],
)
async def test_wrong_images_in_json_are_told_so(client: httpx.AsyncClient, image: Any, code: str) -> None:
    answer = await client.post("/images/edits", json=body(images=[image]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_a_form_that_is_none_is_told_so(client: httpx.AsyncClient) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = await client.post("/images/edits", content=b"abc", headers={"content-type": content_type})
        assert answer.status_code == 400
        assert "parse" in answer.json()["error"]["message"]
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_the_older_models_take_a_fidelity(client: httpx.AsyncClient, openai: FakeOpenAI) -> None:
    form = {"image": png()}
    fields = body(model="gpt-image-1.5", input_fidelity="high")
    assert (await client.post("/images/edits", data=fields, files=form)).status_code == 200
    assert openai.violations == []


@pytest.mark.parametrize(
    ("fields", "said"), [({"user": "u"}, "undocumented field 'user'"), ({"model": None}, "does not say its model")]
)
async def test_what_nobody_documents_is_a_violation(
    client: httpx.AsyncClient, openai: FakeOpenAI, fields: dict[str, Any], said: str
) -> None:
    assert (await client.post("/images/generations", json=body(**fields))).status_code == 200
    assert any(said in violation for violation in openai.violations)
