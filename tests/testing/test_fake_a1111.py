"""The fake A1111 speaks the reference: what a wrong client would be told, a test hears too."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from emp_trio.secrets import Secret
from emp_trio.testing.a1111 import Failure, FakeA1111, Script, open_fake_a1111
from emp_trio.testing.a1111.script import image

TXT2IMG, PROGRESS, TASK = "/sdapi/v1/txt2img", "/sdapi/v1/progress?skip_current_image=true", "/internal/progress"


@pytest.fixture
async def a1111() -> AsyncIterator[FakeA1111]:
    async with open_fake_a1111() as a1111:
        yield a1111


@pytest.fixture
async def client(a1111: FakeA1111) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=a1111.base_url, verify=False) as client:
        yield client


async def task(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    body = {"id_task": name, "id_live_preview": -1, "live_preview": False}
    found: dict[str, Any] = (await client.post(TASK, json=body)).json()
    return found


def where(said: dict[str, Any]) -> str:
    """Which of the three a task is."""
    return " ".join(name for name in ("active", "queued", "completed") if said[name])


async def test_an_answer_has_images_and_info_in_a_text(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    answer = (await client.post(TXT2IMG, json={"prompt": "x", "seed": 7, "batch_size": 2})).json()
    assert [base64.b64decode(image) for image in answer["images"]] == [image(7, {}), image(8, {})]
    info = json.loads(answer["info"])
    assert (info["all_seeds"], info["index_of_first_image"], info["sd_model_name"]) == ([7, 8], 0, "dreamy")
    assert (await client.post(TXT2IMG, json={"send_images": False})).json()["images"] == []


async def test_grids_come_first_and_extras_last(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    a1111.script = Script(extras=1)
    answer = (await client.post(TXT2IMG, json={"seed": 7, "n_iter": 2, "save_images": True})).json()
    assert len(answer["images"]) == 4
    assert json.loads(answer["info"])["index_of_first_image"] == 1
    assert base64.b64decode(answer["images"][1]) == image(7, {})


async def test_one_lock_and_a_state_of_whatever_runs(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    a1111.script = Script(hold_at=2)
    idle = (await client.get(PROGRESS)).json()
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    first = a1111.begin("txt2img", {"force_task_id": "task(1)"})
    a1111.begin("txt2img", {"force_task_id": "task(2)"})
    await a1111.until(lambda: first.step == 2)
    busy = (await client.get(PROGRESS)).json()
    assert (busy["progress"], busy["state"]["job_count"]) == (0.5, 1)
    one, two = await task(client, "task(1)"), await task(client, "task(2)")
    assert (where(one), one["progress"]) == ("active", 0.5)
    assert (where(two), two["textinfo"]) == ("queued", "In queue: 1/1")
    assert where(await task(client, "task(3)")) == ""
    assert (await client.get("/internal/pending-tasks")).json() == {"size": 1, "tasks": ["task(2)"]}
    a1111.release()
    await a1111.until(lambda: a1111.work[1].over.is_set())
    assert where(await task(client, "task(1)")) == where(await task(client, "task(2)")) == "completed"


async def test_a_task_that_failed_stays_active_until_the_next_one(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    a1111.script = Script(failure=Failure(error="OutOfMemoryError", errors="CUDA out of memory."))
    answer = await client.post(TXT2IMG, json={"force_task_id": "task(1)"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory."}
    assert where(await task(client, "task(1)")) == "active"
    a1111.script = Script()
    await client.post(TXT2IMG, json={})
    assert where(await task(client, "task(1)")) == ""


async def test_an_interrupt_hits_whatever_runs_and_is_lost_on_what_waits(
    a1111: FakeA1111, client: httpx.AsyncClient
) -> None:
    a1111.script = Script(hold_at=2)
    assert (await client.post("/sdapi/v1/interrupt")).json() == {}
    first = a1111.begin("txt2img", {"force_task_id": "task(1)"})
    second = a1111.begin("txt2img", {"force_task_id": "task(2)"})
    await a1111.until(lambda: first.step == 2)
    await client.post("/sdapi/v1/interrupt")
    await a1111.until(lambda: second.step == 2)
    assert (first.end, second.end) == ("interrupted", "running")
    assert first.answer[0] == 200
    assert len(first.answer[1]["images"]) == 1
    assert a1111.engine.interrupts == [None, "task(1)"]
    a1111.release()
    await second.over.wait()
    assert second.end == "done"


async def test_work_goes_on_without_its_client(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    a1111.script = Script(hold_at=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.post(TXT2IMG, json={}))
        await a1111.until(lambda: bool(a1111.work) and a1111.work[0].step == 2)
        nursery.cancel_scope.cancel()
    a1111.release()
    await a1111.work[0].over.wait()
    assert a1111.work[0].end == "done"


async def test_an_unknown_model_is_dropped_without_a_word(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    answer = (await client.post(TXT2IMG, json={"override_settings": {"sd_model_checkpoint": "no"}})).json()
    assert json.loads(answer["info"])["sd_model_name"] == "dreamy"


async def test_the_old_model_is_loaded_back_unless_the_client_says_otherwise(
    a1111: FakeA1111, client: httpx.AsyncClient
) -> None:
    body: dict[str, Any] = {"override_settings": {"sd_model_checkpoint": "anime_flat"}}
    await client.post(TXT2IMG, json=body)
    assert a1111.engine.model.startswith("dreamy")
    await client.post(TXT2IMG, json=body | {"override_settings_restore_afterwards": False})
    assert a1111.engine.model.startswith("anime")


@pytest.mark.parametrize(
    ("endpoint", "body", "status", "said"),
    [
        ("txt2img", {"steps": "x"}, 422, "value is not a valid int"),
        ("txt2img", {"tiling": 1, "width": True}, 422, "value is not a valid bool"),
        ("txt2img", [], 422, "value is not a valid dict"),
        ("txt2img", {"script_name": "x"}, 422, "Script 'x' not found"),
        ("txt2img", {"sampler_name": "x"}, 400, "Sampler not found"),
        ("img2img", {}, 404, "Init image not found"),
        ("img2img", {"init_images": ["!"]}, 500, "Invalid encoded image"),
        ("img2img", {"init_images": [base64.b64encode(b"x").decode()], "mask": "!"}, 500, "Invalid encoded image"),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(
    client: httpx.AsyncClient, endpoint: str, body: Any, status: int, said: str
) -> None:
    answer = await client.post(f"/sdapi/v1/{endpoint}", json=body)
    assert answer.status_code == status
    assert said in answer.text


async def test_api_auth_covers_its_own_routes_alone(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    a1111.api_auth = "ann", Secret("pw")
    assert (await client.get("/sdapi/v1/memory")).status_code == 401
    assert (await client.get("/sdapi/v1/memory", auth=("ann", "pw"))).status_code == 200
    assert where(await task(client, "task(1)")) == ""


async def test_what_a_good_client_does_not_do_is_counted(a1111: FakeA1111, client: httpx.AsyncClient) -> None:
    await client.post(TXT2IMG, json={"stepps": 1})
    await client.get("/sdapi/v1/progress")
    await client.post(TASK, json={"id_task": "x"})
    assert (await client.get("/sdapi/v1/nonsense")).json() == {"detail": "Not Found"}
    assert len(a1111.violations) == 4
    properties = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert "steps" in properties["StableDiffusionTxt2ImgProcessingAPI"]["properties"]
