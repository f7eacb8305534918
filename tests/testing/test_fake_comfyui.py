"""The fake ComfyUI says what the recordings of a real one say, and misbehaves in every way of ComfyUI reference 9."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.websocket import WebSocketSession, WebSocketSettings
from emp_trio.protocols.websocket.connection import open_connection
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.recordings import recording

pytestmark = pytest.mark.usefixtures("in_time")

IMAGE = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 1}}}
SAVED = IMAGE | {"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "rig"}}}


def sleeping(seconds: float = 3600.0, steps: int = 0, **more: Any) -> dict[str, Any]:
    sleep = {"class_type": "RigSleep", "inputs": {"seconds": seconds, "steps": steps} | more}
    return {"1": sleep, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "slow"}}}


@pytest.fixture
async def in_time() -> AsyncIterator[None]:
    with trio.fail_after(60):
        yield


class Client:
    """A plain client: HTTP, and one socket."""

    def __init__(self, http: httpx.AsyncClient, fake: FakeComfyUI) -> None:
        self.http = http
        self.fake = fake

    async def submit(self, graph: dict[str, Any], prompt_id: str = "p-1", **more: Any) -> httpx.Response:
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": "me"} | more
        return await self.http.post("/prompt", json=body)

    async def history(self, prompt_id: str = "p-1") -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"/history/{prompt_id}")).json()
        return found.get(prompt_id, {})

    async def ended(self, prompt_id: str = "p-1") -> dict[str, Any]:
        await self.fake.until(lambda: prompt_id in self.fake.engine.history)
        return await self.history(prompt_id)

    @asynccontextmanager
    async def socket(self, sid: str = "me") -> AsyncIterator[WebSocketSession]:
        url = f"ws://127.0.0.1:{self.fake.port}/ws?clientId={sid}"
        async with open_connection(url, WebSocketSettings(url=url), {}, None) as connection:
            yield WebSocketSession(connection, lambda error: error)


@pytest.fixture
async def fake() -> AsyncIterator[FakeComfyUI]:
    async with open_fake_comfyui() as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeComfyUI) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        yield Client(http, fake)


async def heard(socket: WebSocketSession, until: str = "end") -> list[tuple[str, dict[str, Any]]]:
    """Messages up to the end marker of a prompt, or one of a type."""
    found = []
    while True:
        message = await socket.receive()
        if isinstance(message, bytes):
            found.append(("binary", {"frame": message}))
            continue
        whole = json.loads(message)
        found.append((whole["type"], whole["data"]))
        if whole["type"] == until or (whole["type"] == "executing" and whole["data"]["node"] is None):
            return found


def shape(value: Any) -> Any:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__ if isinstance(value, str | int | float) else value


async def test_a_prompt_sends_what_the_recording_has(client: Client) -> None:
    records = recording("02-success.jsonl")
    graph = next(r["body"]["prompt"] for r in records if r.get("path") == "/prompt" and r["dir"] == "out")
    recorded = [(r["body"]["type"], r["body"]["data"]) for r in records if r["kind"] == "ws-text"]
    async with client.socket() as socket:
        assert (await heard(socket, "status"))[0][1]["sid"] == "me"
        answer = await client.submit(graph)
        assert shape(answer.json()) == {"prompt_id": "str", "number": "int", "node_errors": {}}
        said = await heard(socket)
    recorded = [message for message in recorded if "sid" not in message[1]]
    # which of two branches runs first is the server's choice
    assert sorted(name for name, _ in said) == sorted(name for name, _ in recorded)
    assert [name for name, _ in said][:4] == [name for name, _ in recorded][:4]
    assert [name for name, _ in said][-3:] == [name for name, _ in recorded][-3:]
    shapes = {(name, json.dumps(shape(data), sort_keys=True)) for name, data in said if name not in ("progress_state",)}
    assert shapes == {
        (name, json.dumps(shape(data), sort_keys=True)) for name, data in recorded if name not in ("progress_state",)
    }
    entry = await client.history()
    kept = next(r["body"] for r in records if r.get("path", "").startswith("/history/") and r["dir"] == "in")
    (kept,) = kept.values()
    assert set(entry) == set(kept)
    assert shape(entry["outputs"]) == shape(kept["outputs"])
    assert [name for name, _ in entry["status"]["messages"]] == [name for name, _ in kept["status"]["messages"]]
    image = await client.http.get("/view", params=entry["outputs"]["4"]["images"][0])
    assert image.headers["content-type"] == "image/png"


@pytest.mark.parametrize("number", range(16))
async def test_wrong_prompts_are_refused_in_the_words_of_the_recording(client: Client, number: int) -> None:
    """9.7: 400 of each type, with both parts empty, and 200 with node_errors."""
    records = [r for r in recording("04-validation.jsonl") if r.get("path") == "/prompt"]
    pairs = [
        (out["body"], back)
        for out, back in zip(records[::2], records[1::2], strict=True)
        if out["body"] and back["status"] in (200, 400) and isinstance(out["body"].get("prompt", {}), dict)
    ]
    asked, back = pairs[number]
    answer = await client.http.post("/prompt", json=asked)
    assert answer.status_code == back["status"]
    recorded, said = back["body"], answer.json()
    assert said.get("error", {}).get("type") == recorded.get("error", {}).get("type")
    assert {
        node: (e["class_type"], sorted(x["type"] for x in e["errors"])) for node, e in said["node_errors"].items()
    } == {
        node: (e["class_type"], sorted(x["type"] for x in e["errors"])) for node, e in recorded["node_errors"].items()
    }


async def test_events_may_come_before_the_answer_and_the_first_status_late(client: Client) -> None:
    """9.1"""
    client.fake.behavior.hold_answers = True
    client.fake.behavior.late_status = 0.2
    async with client.socket() as socket, trio.open_nursery() as nursery:
        nursery.start_soon(client.submit, SAVED)
        said = await heard(socket)
        assert not any("sid" in data for _, data in said)
        assert "sid" in (await heard(socket, "status"))[-1][1]


async def test_the_history_may_be_empty_after_the_end(client: Client) -> None:
    """9.2"""
    client.fake.behavior.empty_histories = 2
    await client.submit(SAVED)
    assert await client.ended() == {}
    assert await client.history() == {}
    assert (await client.history())["status"]["completed"]


@pytest.mark.parametrize("close_frame", [True, False])
async def test_a_dropped_socket_misses_what_happens_meanwhile(client: Client, close_frame: bool) -> None:
    """9.3: nothing is replayed but the running node, without the prompt's id."""
    await client.submit(sleeping(), "long")
    async with client.socket() as socket:
        await heard(socket, "status")
        await client.fake.drop_sockets(close_frame=close_frame)
        with pytest.raises(ServiceError) as caught:
            await heard(socket, "nothing more")
        assert caught.value.code == ("1001" if close_frame else "1006")
    async with client.socket() as socket:
        assert (await heard(socket, "executing"))[-1] == ("executing", {"node": "1"})


async def test_an_old_sockets_end_silences_the_new_one_of_its_id(client: Client) -> None:
    """9.4"""

    async def hold(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with client.socket():
            task_status.started()
            await trio.sleep_forever()

    async with client.socket("another") as other, trio.open_nursery() as old:
        await old.start(hold)
        async with client.socket() as second:
            await heard(second, "status")
            old.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await client.fake.until(lambda: "me" not in client.fake.process.sockets)
                await client.submit(SAVED)
                await client.ended()
                assert "status" in [name for name, _ in await heard(other, "status")]
                with trio.move_on_after(0.1) as silent:
                    await second.receive()
                assert silent.cancelled_caught


async def test_an_open_socket_may_be_silent(client: Client) -> None:
    """9.5"""
    async with client.socket() as socket:
        await heard(socket, "status")
        client.fake.behavior.mute = True
        await client.submit(SAVED)
        await client.ended()
        with trio.move_on_after(0.1) as silent:
            await socket.receive()
        assert silent.cancelled_caught


async def test_a_cached_run_names_old_files_that_may_be_gone_or_anothers(client: Client) -> None:
    """9.6, 4.8"""
    client.fake.behavior.keep_cache = True
    await client.submit(SAVED, "a")
    (file,) = (await client.ended("a"))["outputs"]["2"]["images"]
    first = (await client.http.get("/view", params=file)).content
    client.fake.disk.files.clear()
    async with client.socket() as socket:
        await client.submit(SAVED, "b")
        said = await heard(socket)
    assert dict(said)["execution_cached"]["nodes"] == ["1", "2"]
    assert [data for name, data in said if name == "executing"] == [{"node": None, "prompt_id": "b"}]
    assert (await client.ended("b"))["outputs"]["2"]["images"] == [file]
    assert (await client.http.get("/view", params=file)).status_code == 404
    other = json.loads(json.dumps(SAVED).replace('"color": 1', '"color": 2'))
    await client.submit(other, "c")
    assert (await client.ended("c"))["outputs"]["2"]["images"] == [file]
    await client.submit(SAVED, "d")
    assert (await client.ended("d"))["outputs"]["2"]["images"] == [file]
    assert (await client.http.get("/view", params=file)).content != first


async def test_a_refusal_may_come_from_a_proxy_or_after_the_fact(client: Client) -> None:
    """9.7"""
    client.fake.inject("POST /prompt", 502, "<html>", content_type="text/html")
    client.fake.inject("POST /prompt", 302, headers={"location": "/login"})
    client.fake.inject("POST /prompt", 500, "500 Internal Server Error", after=True)
    assert (await client.submit(SAVED)).status_code == 502
    assert (await client.submit(SAVED)).status_code == 302
    assert not client.fake.executions
    assert (await client.submit(SAVED)).status_code == 500
    assert (await client.ended())["status"]["completed"]
    assert (await client.http.post("/prompt", content=b"no JSON")).status_code == 500


async def test_two_waiting_prompts_of_one_number_and_id_are_queued_in_spite_of_a_500(client: Client) -> None:
    """9.7, 2.1"""
    await client.submit(sleeping(), "running")
    assert (await client.submit(SAVED, "twin", number=7)).status_code == 200
    assert (await client.submit(SAVED, "twin", number=7)).status_code == 500
    assert [item.prompt_id for item in client.fake.engine.pending] == ["twin", "twin"]


async def test_a_failure_keeps_what_was_saved_before_it(client: Client) -> None:
    """9.8"""
    graph = SAVED | {"3": {"class_type": "RigRaise", "inputs": {"image": ["1", 0], "message": "no"}}}
    await client.submit(graph)
    entry = await client.ended()
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert "2" in entry["outputs"]


async def test_interrupts_are_heard_at_steps_and_between_nodes_or_never(client: Client) -> None:
    """9.8, 9.9, 6"""
    await client.submit(sleeping(0.4, 20), "steps")
    await client.fake.until(lambda: client.fake.engine.running)
    await client.http.post("/interrupt", json={"prompt_id": "another"})
    await client.http.post("/interrupt", json={"prompt_id": "steps"})
    entry = await client.ended("steps")
    assert entry["status"]["status_str"] == "error"
    assert entry["status"]["messages"][-1][1]["node_id"] == "1"
    await client.submit(sleeping(0.2, salt=1), "deaf")
    await client.fake.until(lambda: client.fake.engine.node)
    await client.http.post("/interrupt", json={"prompt_id": "deaf"})
    entry = await client.ended("deaf")
    assert entry["status"]["messages"][-1][1]["node_id"] == "2"
    client.fake.behavior.ignore_interrupts = True
    await client.submit(sleeping(0.2, 4, salt=2), "never")
    await client.fake.until(lambda: client.fake.engine.node)
    await client.http.post("/interrupt")
    assert (await client.ended("never"))["status"]["completed"]


async def test_a_pending_prompt_is_deleted_without_a_trace(client: Client) -> None:
    """9.9"""
    await client.submit(sleeping(), "running")
    await client.submit(SAVED, "waiting")
    await client.http.post("/queue", json={"delete": ["waiting", "running", "unknown"]})
    queue = (await client.http.get("/queue")).json()
    assert [item[1] for item in queue["queue_running"]] == ["running"]
    assert queue["queue_pending"] == []
    assert await client.history("waiting") == {}


async def test_a_bad_graph_ends_the_worker_thread_and_only_a_restart_helps(client: Client) -> None:
    """9.10, 4.6: HTTP stays healthy, everything is accepted, nothing runs."""
    bad = SAVED | {"9": {"class_type": "PreviewImage"}}
    assert (await client.submit(bad, "bad")).status_code == 200
    await client.fake.until(lambda: client.fake.executions["bad"])
    assert (await client.submit(SAVED, "next")).status_code == 200
    await client.http.post("/interrupt", json={"prompt_id": "bad"})
    queue = (await client.http.get("/queue")).json()
    assert [item[1] for item in queue["queue_running"] + queue["queue_pending"]] == ["bad", "next"]
    assert (await client.http.get("/prompt")).json()["exec_info"]["queue_remaining"] == 2
    port = client.fake.port
    await client.fake.restart()
    assert client.fake.port == port
    assert (await client.http.get("/prompt")).json()["exec_info"]["queue_remaining"] == 0
    assert (await client.submit(SAVED, "after")).json()["number"] == 0
    assert (await client.ended("after"))["status"]["completed"]
    assert client.fake.executions == {"bad": 1, "after": 1}


async def test_a_killed_server_ends_sockets_without_a_close_frame_and_refuses_connections(client: Client) -> None:
    """4.5"""
    async with client.socket() as socket:
        await heard(socket, "status")
        await client.fake.kill()
        with pytest.raises(ServiceError) as caught:
            await heard(socket, "nothing more")
        assert caught.value.code == "1006"
    with pytest.raises(httpx.HTTPError):
        await client.http.get("/prompt")


async def test_strangers_are_heard_and_so_is_nonsense(client: Client) -> None:
    """9.11, 4.9"""
    async with client.socket() as socket:
        await heard(socket, "status")
        client.fake.stranger(sleeping(0.02, 2))
        said = await heard(socket, "progress")
        assert {name for name, _ in said} <= {"status", "progress", "progress_state"}
        assert said[-1][1]["prompt_id"] == "a-stranger"
        client.fake.say(b"\0\0\0\x63")
        client.fake.say({"type": "crystools.monitor", "data": {}})
        names = [name for name, _ in await heard(socket, "crystools.monitor")]
        assert "binary" in names


async def test_outputs_of_every_kind(client: Client) -> None:
    """9.12"""
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": IMAGE["1"]["inputs"]},
        "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], "filename_prefix": "v"}},
        "3": {"class_type": "RigFiles", "inputs": {"key": "odd", "extension": "xyz", "filename_prefix": "f"}},
        "4": {"class_type": "RigSay", "inputs": {"text": "✓"}},
        "5": {"class_type": "RigNothing", "inputs": {}},
    }
    async with client.socket() as socket:
        await client.submit(graph)
        said = await heard(socket)
    outputs = (await client.ended())["outputs"]
    assert outputs["2"]["images"][0]["filename"] == "v_00001_.mp4"
    assert outputs["3"]["odd"][0]["filename"] == "f_00001_.xyz"
    assert outputs["4"] == {"text": ["✓"]}
    assert "5" not in outputs
    assert ("binary", {"frame": b"\0\0\0\x03\0\0\0\x014" + "✓".encode()}) in said


async def test_answers_may_be_late_or_cut(client: Client) -> None:
    """9.13"""
    client.fake.inject("GET /queue", delay=0.1)
    client.fake.inject("GET /queue", cut=20)
    start = trio.current_time()
    assert (await client.http.get("/queue")).status_code == 200
    assert trio.current_time() - start >= 0.1
    with pytest.raises(httpx.HTTPError):
        await client.http.get("/queue")


async def test_a_client_that_does_not_read_stops_the_messages_of_all(client: Client) -> None:
    """4.7"""
    stream = await trio.open_tcp_stream("127.0.0.1", client.fake.port)
    await stream.send_all(
        b"GET /ws?clientId=deaf HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    await client.fake.until(lambda: "deaf" in client.fake.process.sockets)
    async with client.socket() as socket:
        await heard(socket, "status")
        client.fake.say({"type": "large", "data": "x" * 30_000_000})
        await client.submit(SAVED)
        await client.ended()
        with trio.move_on_after(0.2) as silent:
            await heard(socket, "execution_start")
        assert silent.cancelled_caught
        await trio.aclose_forcefully(stream)


async def test_uploads_are_as_recorded(client: Client) -> None:
    """2.4: another file of the same name gets another name."""
    files = {"image": ("in.png", b"one", "image/png")}
    assert (await client.http.post("/upload/image", files=files)).json()["name"] == "in.png"
    assert (await client.http.post("/upload/image", files=files)).json()["name"] == "in.png"
    files = {"image": ("in.png", b"two", "image/png")}
    assert (await client.http.post("/upload/image", files=files)).json()["name"] == "in (1).png"
    answer = await client.http.post("/upload/image", files=files, data={"subfolder": "job-1", "type": "temp"})
    assert answer.json() == {"name": "in.png", "subfolder": "job-1", "type": "temp"}
    assert client.fake.disk.find("job-1/in.png [temp]") == b"two"
    for data, status in (({"subfolder": "../.."}, 400), ({"type": "nowhere"}, 500)):
        assert (await client.http.post("/upload/image", files=files, data=data)).status_code == status


@asynccontextmanager
async def proxied() -> AsyncIterator[FakeComfyUI]:
    async with open_fake_comfyui() as fake:
        fake.base_path, fake.demands = "/gpu/7", {"authorization": "Bearer right"}
        yield fake


async def test_a_proxy_may_stand_in_front(fake: FakeComfyUI) -> None:
    """7: a base path, the prefix /api, credentials."""
    async with proxied() as fake, httpx.AsyncClient(base_url=fake.url) as http:
        right = {"authorization": "Bearer right"}
        assert (await http.get("/queue")).status_code == 401
        assert (await http.get("/api/queue", headers=right)).status_code == 200
        assert (await http.get(f"http://127.0.0.1:{fake.port}/queue", headers=right)).status_code == 404
