"""A job through the connector: prompt, progress, files, and what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, InvalidJob, ServiceError
from emp_trio.jobs import JobContext
from emp_trio.services.registry import find_connector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import ID, bodies, image, open_comfyui, runs, sleeping
from tests.services.support import job, stored


async def test_a_image_is_made_and_saved(connector: Any, fake: FakeComfyUI, tmp_path: Path) -> None:
    context = FakeAttempt()
    result = await run_job(connector, job({"workflow": image()}), context)
    ((name, content),) = stored(tmp_path / "assets").items()
    ((key, made),) = [item for item in fake.disk.files.items() if item[0][0] == "output"]
    assert content == made
    assert key[1].startswith(ID)
    assert result.success
    assert result.data["prompt_id"] == ID
    assert result.data["image_url"] == result.output_files[0].metadata["cdn_url"]
    assert (result.data["mime_type"], result.data["content_type"]) == ("image/png", "image")
    assert result.metadata["saved_asset"]["fileName"] == name
    assert result.service_metadata["service_job_id"] == ID
    assert runs(fake) == 1


async def test_progress_rises_with_the_nodes(connector: Any) -> None:
    context = FakeAttempt()
    await run_job(connector, job({"workflow": sleeping(0.1, 10)}), context)
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert len([value for value in values if 10 < value < 50]) >= 8
    assert values[-1] == 100
    assert any("node 1" in report.message for report in context.reports)


async def test_jobs_share_one_socket_and_each_gets_its_own_file(
    connector: Any, fake: FakeComfyUI, tmp_path: Path
) -> None:
    """4.8: the same prefix in every job, and a cache that keeps everything."""
    fake.behavior.keep_cache = True
    names: dict[int, str] = {}

    async def run(number: int) -> None:
        workflow = image(number % 5, "same")
        names[number] = (await run_job(connector, job({"workflow": workflow}, id=f"job-{number}"))).output_files[0].path

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert fake.process.opened == 1
    assert len(set(names.values())) == 20
    assert len(stored(tmp_path / "assets")) == 20
    folders = {key[1].split("/")[0] for key in fake.disk.files if key[0] == "output"}
    assert len(folders) == 20


async def test_a_cached_run_never_serves_a_file_that_is_gone_or_anothers(
    connector: Any, fake: FakeComfyUI, tmp_path: Path
) -> None:
    """4.8: files are counted up from what lies in the folder, so a name comes back with another image."""
    fake.behavior.keep_cache = True
    first = await run_job(connector, job({"workflow": image(1)}, id="a"))
    fake.disk.files.clear()
    await run_job(connector, job({"workflow": image(2)}, id="b"))
    again = await run_job(connector, job({"workflow": image(1)}, id="c"))
    assert again.output_files[0].metadata["sha256"] == first.output_files[0].metadata["sha256"]


async def test_a_fully_cached_prompt_is_told_as_such(connector: Any, fake: FakeComfyUI) -> None:
    """4.8: it sends no executing; instant jobs look like bugs otherwise."""
    say = {"1": {"class_type": "RigSay", "inputs": {"text": "ready"}}}
    assert not (await run_job(connector, job({"workflow": say}, id="a"))).data["cached"]
    result = await run_job(connector, job({"workflow": say}, id="b"))
    assert result.data["cached"]
    assert result.data["text"] == "ready"
    assert result.output_files == ()


async def test_files_of_every_kind_are_saved(connector: Any) -> None:
    """5: films are listed as images, node packs have keys of their own."""
    workflow = image() | {
        "3": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], "filename_prefix": "v"}},
        "4": {"class_type": "SaveAudio", "inputs": {"filename_prefix": "s"}},
        "5": {"class_type": "RigFiles", "inputs": {"key": "mesh", "extension": "xyz", "filename_prefix": "m"}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "7": {"class_type": "RigSay", "inputs": {"text": "words"}},
    }
    result = await run_job(connector, job({"workflow": workflow}))
    kinds = [file.mime_type for file in result.output_files]
    assert kinds[:3] == ["image/png", "video/mp4", "audio/flac"]
    assert len(kinds) == 4
    assert result.data["text"] == "words"
    assert result.metadata["comfyui_outputs"]["other"] == {"3": {"animated": [True]}}
    both = await run_job(connector, job({"workflow": workflow, "include_temp": True}, id="job-2"))
    assert len(both.output_files) == 5


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
async def test_a_number_that_is_none_costs_no_finished_prompt(
    fake: FakeComfyUI, connector_context: ConnectorContext, number: str
) -> None:
    """Real servers 1: the history, and what is said on the socket, are written by Python's json."""
    async with open_comfyui(fake, connector_context) as connector:
        workflow = image() | {"3": {"class_type": "RigShow", "inputs": {"value": number}}}
        result = await run_job(connector, job({"workflow": workflow}))
        assert len(result.output_files) == runs(fake) == 1
        assert result.metadata["comfyui_outputs"]["other"] == {"3": {"value": [None]}}
        msgspec.json.encode(result)


async def test_a_class_with_a_number_that_is_none_can_be_used(connector: Any, fake: FakeComfyUI) -> None:
    names = ("EmptyImage", "SaveImage")
    answers = {name: {"input": {}, "output_node": name == "SaveImage", "default": "NaN"} for name in names}
    body = msgspec.json.encode(answers).replace(b'"NaN"', b"NaN")
    fake.inject("GET /object_info", 200, body, content_type="application/json", times=2)
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert fake.count("GET /object_info") == 2


async def test_a_refusal_with_a_number_that_is_none_is_told_and_final(connector: Any, fake: FakeComfyUI) -> None:
    body = (
        b'{"error": {"type": "prompt_outputs_failed_validation", "message": "no", "details": ""}, "node_errors": {"1": '
        b'{"class_type": "EmptyImage", "errors": [{"type": "value_bigger_than_max", "message": "too big", "details": '
        b'"width", "extra_info": {"received_value": NaN}}]}}}'
    )
    fake.inject("POST /prompt", 400, body, content_type="application/json")
    with pytest.raises(ServiceError, match="too big: width") as caught:
        await run_job(connector, job({"workflow": image()}))
    assert not caught.value.retry


async def test_nothing_to_show_is_a_success(connector: Any) -> None:
    """5: a prompt can succeed with no files."""
    result = await run_job(connector, job({"workflow": {"1": {"class_type": "RigNothing", "inputs": {}}}}))
    assert result.success
    assert result.output_files == ()


async def test_images_for_the_socket_are_saved_instead(connector: Any, fake: FakeComfyUI) -> None:
    """3.3: they leave nothing in the history."""
    workflow = image() | {"2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    assert len((await run_job(connector, job({"workflow": workflow}))).output_files) == 1
    assert bodies(fake)[0]["prompt"]["2"]["class_type"] == "SaveImage"


async def test_what_is_sent_is_what_later_servers_want(connector: Any, fake: FakeComfyUI) -> None:
    """1, 4.9, 2: an id of ours, a client id always, metadata along with it, and no Origin."""
    extra = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    await run_job(connector, job({"workflow": image(), "extra_data": extra}))
    (body,) = bodies(fake)
    assert body["prompt_id"] == ID
    assert body["client_id"] == connector.server.client_id
    assert body["extra_data"] == extra
    assert not any("origin" in request.headers for request in fake.requests)
    queries = [request.target for request in fake.of("GET /ws")]
    assert queries == [f"/ws?clientId={connector.server.client_id}"]


async def test_an_order_to_clear_or_to_interrupt_just_anything_is_never_sent(connector: Any, fake: FakeComfyUI) -> None:
    """2.2: other clients' prompts are not ours to stop."""
    with trio.move_on_after(0.3):
        await run_job(connector, job({"workflow": sleeping(20, 1000)}))
    for request in fake.of("POST /queue") + fake.of("POST /history") + fake.of("POST /interrupt"):
        assert b"clear" not in request.body
        assert b'"prompt_id"' in request.body or b'"delete"' in request.body


async def test_a_bad_graph_never_reaches_the_server(connector: Any, fake: FakeComfyUI) -> None:
    """2.1, 4.6: this one would end the worker thread for good."""
    with pytest.raises(InvalidJob):
        await run_job(connector, job({"workflow": image() | {"9": {"class_type": "PreviewImage"}}}))
    assert not bodies(fake)


async def test_what_the_server_lacks_is_found_before_sending_and_asked_for_again(
    connector: Any, fake: FakeComfyUI
) -> None:
    """11: models and node packs are added while workers run."""
    with pytest.raises(ServiceError, match="NoSuchNode") as caught:
        await run_job(connector, job({"workflow": image() | {"3": {"class_type": "NoSuchNode", "inputs": {}}}}))
    assert caught.value.retry
    assert not bodies(fake)
    fake.behavior.any_class = True
    workflow = image() | {"3": {"class_type": "NoSuchNode", "inputs": {}}}
    assert (await run_job(connector, job({"workflow": workflow}))).success


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_proxy_that_hides_the_node_classes_is_no_obstacle(
    connector: Any, fake: FakeComfyUI, status: int
) -> None:
    fake.inject("GET /object_info", status, times=10)
    assert (await run_job(connector, job({"workflow": image()}))).success


@pytest.mark.parametrize("answer", ["null", "[]", "7", '"no"'])
async def test_node_classes_that_are_not_told_are_no_obstacle(connector: Any, fake: FakeComfyUI, answer: str) -> None:
    fake.inject("GET /object_info", 200, answer, content_type="application/json", times=10)
    assert (await run_job(connector, job({"workflow": image()}))).success


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_history_that_is_hidden_for_a_while_costs_no_prompt(
    connector: Any, fake: FakeComfyUI, status: int
) -> None:
    fake.inject("GET /history", status, times=2)
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert len(bodies(fake)) == 1


async def test_storage_that_cannot_work_is_found_out_before_the_gpu_is_troubled(
    connector: Any, fake: FakeComfyUI
) -> None:
    with pytest.raises(ConfigError):
        await run_job(connector, job({"workflow": image()}, ctx=JobContext(provider="azure")))
    assert not bodies(fake)


async def test_a_large_message_does_not_lose_the_job(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """3: the library's own limit of 1 MiB would end the socket in mid-prompt."""
    async with open_comfyui(fake, connector_context, follow={"poll_soon": 60.0, "poll_interval": 60.0}) as connector:
        say = {"1": {"class_type": "RigSay", "inputs": {"text": "x" * 5 * 2**20}}}
        assert (await run_job(connector, job({"workflow": say}))).success
        assert fake.process.opened == 1


async def test_a_message_above_the_limit_costs_the_socket_and_not_the_job(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """3: a message that is too big means: socket lost, go on by polling."""
    async with open_comfyui(fake, connector_context, websocket={"max_message_bytes": 100_000}) as connector:
        say = {"1": {"class_type": "RigSay", "inputs": {"text": "x" * 2**20}}}
        assert (await run_job(connector, job({"workflow": say}))).success
        await fake.until(lambda: fake.process.opened > 1)


async def test_the_connectors_are_found_by_name() -> None:
    for name in ("ComfyUIWebSocketConnector", "ComfyUIRemoteConnector"):
        found = find_connector(name)
        assert found is not None
        assert found.service_type == "comfyui"


async def test_a_file_that_is_gone_costs_the_others_nothing(connector: Any, fake: FakeComfyUI, tmp_path: Path) -> None:
    workflow = image() | {
        "8": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "second"}},
    }
    fake.inject("GET /view", 404)
    result = await run_job(connector, job({"workflow": workflow}))
    assert len(result.output_files) == len(stored(tmp_path / "assets")) == 1
    assert "is gone from the server" in str(result.metadata["warnings"])
    assert len(result.metadata["comfyui_outputs"]["files"]) == 1
    assert len(bodies(fake)) == 1
    fake.inject("GET /view", 404, times=2)
    with pytest.raises(ServiceError, match="gone from the server") as caught:
        await run_job(connector, job({"workflow": workflow}, id="job-2"))
    assert caught.value.retry
