"""What jobs of A1111 get: images from text and from images, with the model that they ask for."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.testing.a1111 import FakeA1111, Model, Script
from emp_trio.testing.a1111.script import image
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.png import make_png
from tests.services.a1111.support import GENERATE, PROMPT, open_a1111
from tests.services.support import job, stored

PNG = make_png(8, 8, seed=5, size=2_000)


def sent(a1111: FakeA1111) -> dict[str, Any]:
    """The body of the only generation."""
    (work,) = a1111.work
    return work.body


@pytest.mark.parametrize(
    "payload",
    [
        PROMPT | {"seed": 0},
        {"endpoint": "txt2img", "method": "POST", "payload": PROMPT | {"seed": 0}},
        {"endpoint": "/sdapi/v1/txt2img", "payload": PROMPT | {"seed": 0, "styles": None}},
    ],
)
async def test_text_becomes_a_image_that_is_saved(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path, payload: dict[str, Any]
) -> None:
    context = FakeAttempt()
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(payload), context)
    assert sent(a1111) == {
        "prompt": "a lighthouse",
        "seed": 0,
        "send_images": True,
        "override_settings_restore_afterwards": False,
        "force_task_id": "task(job-1-1)",
    }
    ((name, content),) = stored(tmp_path / "assets").items()
    assert content == image(0, {})
    data = result.data
    assert (data["mime_type"], data["content_type"], data["seeds"]) == ("image/png", "image", [0])
    assert data["images"] == [data["image_url"]] == [result.output_files[0].metadata["cdn_url"]]
    assert data["info"]["prompt"] == "a lighthouse"
    assert data["model_used"] == result.service_metadata["model_used"] == "dreamy"
    assert result.metadata == {"endpoint": "txt2img", "saved_asset": result.metadata["saved_asset"]}
    assert result.metadata["saved_asset"]["fileName"] == name
    assert result.raw_request_payload == sent(a1111)
    assert [report.value for report in context.reports][-1] == 100


async def test_images_become_a_image(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    encoded = base64.b64encode(PNG).decode()
    async with (
        open_faulty_server(reply(200, PNG, content_type="image/png")) as files,
        open_a1111(a1111.base_url, connector_context) as connector,
    ):
        url = f"{files.url}/in.png"
        images = [encoded, f"data:image/png;base64,{encoded}", url, url]
        payload = PROMPT | {"init_images": images, "mask": url, "denoising_strength": 0.4}
        result = await run_job(connector, job({"endpoint": "img2img", "payload": payload}))
    body = sent(a1111)
    assert a1111.work[0].endpoint == "img2img"
    assert body["init_images"] == [encoded] * 4
    assert body["mask"] == encoded
    assert len(files.requests) == 1  # one address is asked once
    assert encoded not in msgspec.json.encode(result).decode()  # no file bytes in a result


async def test_a_wrong_payload_never_reaches_the_server(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"endpoint": "interrogate", "payload": PROMPT},
        {"endpoint": "img2img", "payload": PROMPT},
        {"endpoint": "img2img", "payload": PROMPT | {"init_images": ["not an image!"]}},
        {"endpoint": "img2img", "payload": PROMPT | {"init_images": [{"url": "x"}]}},
        {"endpoint": "img2img", "payload": PROMPT | {"init_images": 7}},
        {"payload": "a lighthouse"},
        PROMPT | {"override_settings": "dreamy"},
    ]
    async with open_a1111(a1111.base_url, connector_context) as connector:
        for payload in wrong:
            with pytest.raises(InvalidJob):
                await run_job(connector, job(payload))
    assert a1111.requests == []


@pytest.mark.parametrize("name", ["flat", "anime_flat", "anime/flat.ckpt [abcdefabcd]", "/m/anime/flat.ckpt"])
async def test_the_model_that_a_job_asks_for(a1111: FakeA1111, connector_context: ConnectorContext, name: str) -> None:
    payload = PROMPT | {"override_settings": {"sd_model_checkpoint": name, "CLIP_stop_at_last_layers": 2}}
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(payload))
    assert a1111.work[0].model == "anime/flat.ckpt [abcdefabcd]"
    assert sent(a1111)["override_settings"]["CLIP_stop_at_last_layers"] == 2
    assert result.data["model_used"] == "anime_flat"
    assert a1111.engine.model == a1111.work[0].model  # not loaded back, which would cost as much again


async def test_the_servers_own_model_is_loaded_back_where_that_is_asked_for(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    payload = PROMPT | {"override_settings": {"sd_model_checkpoint": "anime_flat"}}
    async with open_a1111(a1111.base_url, connector_context, restore_model=True) as connector:
        await run_job(connector, job(payload))
    assert a1111.engine.model != a1111.work[0].model


async def test_a_model_that_is_not_there_is_not_replaced_by_another(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT | {"override_settings": {"sd_model_checkpoint": "anime_flatt"}}))
    assert a1111.work == []
    assert (caught.value.reason, caught.value.retry, caught.value.maybe_started) == ("model_not_found", True, False)
    assert "did you mean anime_flat?" in caught.value.message


@pytest.mark.parametrize("hash", ["abcdefabcd", None])
async def test_a_image_of_another_model_is_a_failure(
    a1111: FakeA1111, connector_context: ConnectorContext, hash: str | None
) -> None:
    flat = msgspec.structs.replace(a1111.engine.models[1], hash=hash)
    a1111.engine.models[1] = flat
    a1111.script = Script(other_model=a1111.engine.models[0].title)
    context = FakeAttempt()
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT | {"override_settings": {"sd_model_checkpoint": flat.title}}), context)
    assert caught.value.reason == "model_not_found"
    assert "instead of 'anime/flat.ckpt [abcdefabcd]'" in caught.value.message
    assert context.checkpoint == {"calls": 1}  # it may be tried once more


async def test_an_answer_that_does_not_name_its_model_is_taken_with_a_warning(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(info=False)
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"override_settings": {"sd_model_checkpoint": "dreamy"}}))
    assert result.metadata["warnings"] == ["A1111 does not say which model it has used"]
    assert result.data["info"] == {}


async def test_models_are_named(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.engine.models.append(Model(title="bare.ckpt", model_name=""))
    async with open_a1111(a1111.base_url, connector_context) as connector:
        assert await connector.models() == ["dreamy", "anime_flat", "bare.ckpt"]


async def test_parameters_that_the_server_would_ignore_are_named(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        for number in (1, 2):
            result = await run_job(connector, job(PROMPT | {"stepps": 3, "cfg": 7}, id=f"job-{number}"))
            assert result.metadata["warnings"] == ["this A1111 has no parameter cfg, stepps and ignores it"]
    assert a1111.work[0].body["stepps"] == 3  # a fork may well know it
    assert a1111.count("/openapi.json") == 1
    assert len(a1111.violations) == 4
    a1111.violations.clear()


async def test_a_server_without_a_schema_is_not_asked_what_it_ignores(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.inject("/openapi.json", status=404, body={"detail": "Not Found"})
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT))
    assert "warnings" not in result.metadata


async def test_every_image_is_saved_and_the_grid_and_the_extras_are_not(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    a1111.script = Script(extras=2, data_urls=True)
    payload = PROMPT | {"batch_size": 2, "n_iter": 2, "seed": 40, "save_images": True}
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(payload))
    assert sorted(stored(tmp_path / "assets").values()) == sorted(image(seed, {}) for seed in (40, 41, 42, 43))
    assert result.data["seeds"] == [40, 41, 42, 43]
    assert len(result.data["images"]) == len(result.output_files) == 4
    assert result.data["image_url"] == result.data["images"][0]


@pytest.mark.parametrize("form", ["nan", "twice", "broken", "null", "list"])
async def test_a_grid_is_left_out_whatever_the_info_is_like(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path, form: Any
) -> None:
    """Python's json writes NaN into it, and extensions write what they like."""
    a1111.script = Script(info_form=form, extras=1)
    async with open_a1111(a1111.base_url, connector_context) as connector:
        await run_job(connector, job(PROMPT | {"batch_size": 2, "seed": 40, "save_images": True}))
    assert sorted(stored(tmp_path / "assets").values()) == sorted(image(seed, {}) for seed in (40, 41))


async def test_images_are_what_their_bytes_say(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    a1111.script = Script(image="jpeg")
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT))
    assert result.data["mime_type"] == "image/jpeg"
    assert [name.rpartition(".")[2] for name in stored(tmp_path / "assets")] == ["jpg"]


async def test_what_is_made_is_kept_though_one_is_lost(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    a1111.script = Script(lost=1)
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"batch_size": 2}))
    assert "made 1 of 2 images" in str(result.metadata["warnings"])
    assert len(stored(tmp_path / "assets")) == a1111.count(GENERATE) == 1


async def test_what_is_no_image_is_a_failure(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    a1111.script = Script(image="text")
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(ServiceError, match="where an image was expected") as caught:
            await run_job(connector, job(PROMPT | {"batch_size": 2}))
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)
    assert stored(tmp_path / "assets") == {}


async def test_images_are_sent_whatever_the_job_says(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"send_images": False}))
    assert result.data["image_url"]
    assert "send_images" in result.metadata["warnings"][0]


async def test_the_credentials_of_a_payload_are_not_passed_on(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(PROMPT | {"ctx": {"storage": {"accountKey": "hush-hush"}}}))
    assert "ctx" not in sent(a1111)
    assert b"hush-hush" not in msgspec.json.encode(result)


async def test_answers_of_any_size_are_read(
    a1111: FakeA1111, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    """Two hundred kilobytes of info become at most 32 in the result."""
    payload = PROMPT | {"prompt": "word " * 10_000, "batch_size": 2}
    async with open_a1111(a1111.base_url, connector_context) as connector:
        result = await run_job(connector, job(payload))
    info = result.data["info"]
    assert len(msgspec.json.encode(info)) < 33 * 2**10
    assert "all_prompts" in info["left_out"]
    assert info["all_seeds"] == [1234, 1235]
    assert a1111.count(GENERATE) == 1
