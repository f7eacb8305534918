"""Input files: fetched under guard, uploaded into a folder of the prompt's own, named in the graph as answered
(ComfyUI reference 2.4)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InvalidJob, ServiceError
from emp_trio.testing.attempt import run_job
from emp_trio.testing.comfyui import FakeComfyUI
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.png import make_png
from tests.services.comfyui.support import ID, bodies, image, open_comfyui
from tests.services.support import job

PNG = make_png(8, 8, seed=5)
BASE64 = base64.b64encode(make_png(8, 8, seed=6, size=1000)).decode()


def loading(*sources: str) -> dict[str, Any]:
    graph = image()
    for number, source in enumerate(sources):
        graph[f"l{number}"] = {"class_type": "LoadImage", "inputs": {"image": source}}
        graph[f"s{number}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"l{number}", 0], "filename_prefix": "x"},
        }
    return graph


def uploaded(fake: FakeComfyUI) -> dict[str, bytes]:
    return {f"{key[1]}/{key[2]}": data for key, data in fake.disk.files.items() if key[0] == "input"}


async def test_urls_data_urls_and_base64_are_uploaded_and_their_names_patched_in(
    connector: Any, fake: FakeComfyUI
) -> None:
    """2.4, 11: an uploaded image is of no use while the graph still names another file."""
    async with open_faulty_server(reply(200, PNG, content_type="image/png")) as files:
        data_url = f"data:image/png;base64,{base64.b64encode(make_png(4, 4)).decode()}"
        url = f"{files.url}/cat.png?sig=secret"
        result = await run_job(connector, job({"workflow": loading(url, data_url, BASE64, url)}))
        assert len(files.requests) == 1  # 11: one download per distinct URL
    assert result.success
    sent = bodies(fake)[0]["prompt"]
    names = [sent[f"l{number}"]["inputs"]["image"] for number in range(4)]
    assert set(names) == set(uploaded(fake))
    assert all(name.startswith(f"{ID}/") for name in names)
    assert names[0] == names[3]
    assert uploaded(fake)[names[0]] == PNG
    assert result.raw_request_payload is not None
    assert "base64" in str(result.raw_request_payload)
    assert BASE64 not in str(result.raw_request_payload)


async def test_a_name_that_the_server_changed_is_used(connector: Any, fake: FakeComfyUI) -> None:
    """2.4: another file of the same name makes it in (1).png."""
    async with open_faulty_server(reply(200, PNG, content_type="image/png")) as files:
        fake.disk.files["input", ID, "cat.png"] = b"something else"
        await run_job(connector, job({"workflow": loading(f"{files.url}/cat.png")}))
    assert bodies(fake)[0]["prompt"]["l0"]["inputs"]["image"] == f"{ID}/cat (1).png"
    assert fake.disk.files["input", ID, "cat.png"] == b"something else"


async def test_names_of_files_that_are_there_are_left_alone(connector: Any, fake: FakeComfyUI) -> None:
    fake.disk.files["temp", "", "t.png"] = PNG
    assert (await run_job(connector, job({"workflow": loading("t.png [temp]")}))).success
    assert fake.count("POST /upload/image") == 0


async def test_a_url_into_the_workers_own_network_is_not_followed(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """11: no private addresses unless allowed."""
    async with (
        open_comfyui(fake, connector_context, fetch={"input_allow_private": False}) as connector,
        open_faulty_server(reply(200, PNG)) as files,
    ):
        with pytest.raises(InvalidJob):
            await run_job(connector, job({"workflow": loading(f"{files.url}/cat.png")}))
        assert not files.requests
    assert not bodies(fake)


@pytest.mark.parametrize("answer", [reply(200, b"<html>"), reply(404)])
async def test_what_is_no_input_file_is_the_jobs_fault(connector: Any, fake: FakeComfyUI, answer: Any) -> None:
    async with open_faulty_server(answer) as files:
        with pytest.raises(InvalidJob):
            await run_job(connector, job({"workflow": loading(f"{files.url}/cat.png?sig=secret")}))
    assert not bodies(fake)


async def test_a_url_in_a_text_is_text(connector: Any, fake: FakeComfyUI) -> None:
    say = {"1": {"class_type": "RigSay", "inputs": {"text": "see https://nowhere.example/cat.png"}}}
    assert (await run_job(connector, job({"workflow": say}))).success
    assert fake.count("POST /upload/image") == 0


async def test_an_upload_that_is_too_large_for_a_proxy_is_told(connector: Any, fake: FakeComfyUI) -> None:
    """7: proxies cap bodies."""
    fake.inject("POST /upload/image", 413)
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job({"workflow": loading(BASE64)}))
    assert (caught.value.status, caught.value.retry) == (413, False)


@pytest.mark.parametrize("route", ["POST /upload/image", "GET /view"])
async def test_a_file_may_take_longer_than_a_short_call(
    fake: FakeComfyUI, connector_context: ConnectorContext, route: str
) -> None:
    """8: uploads and downloads are limited by lack of progress, and not by the time for a call."""
    async with open_comfyui(fake, connector_context, call_timeout=2.5) as connector:
        fake.inject(route, delay=3.0)
        assert (await run_job(connector, job({"workflow": loading(BASE64)}))).success
        assert fake.count(route) <= 2  # one for each file
