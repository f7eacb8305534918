"""The simulated services, spoken to as any client would (connector reference 3.2, 3.3)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from emp_trio.testing.sim_core import begin
from emp_trio.testing.sim_http import open_simulated_http
from emp_trio.testing.sim_websocket import open_simulated_websocket


async def test_http_from_submission_to_image() -> None:
    async with open_simulated_http() as service, httpx.AsyncClient(base_url=service.base_url, verify=False) as client:
        submitted = {
            "job_id": "j",
            "job_type": "simulation",
            "payload": {},
            "simulation_config": {"processing_time_ms": 0},
        }
        answer = (await client.post("/process", json=submitted)).json()
        assert answer.keys() == {"simulation_id", "status", "message"}
        entry = (await client.get(f"/history/{answer['simulation_id']}")).json()[answer["simulation_id"]]
        assert entry["status"] == "success"
        image = await client.get("/view", params=entry["outputs"]["images"][0])
        assert image.headers["content-type"] == "image/png"
        assert image.content.startswith(b"\x89PNG")
        assert (await client.get("/health")).json()["status"] == "healthy"


@pytest.mark.parametrize("path", ["/history/none", "/view?filename=none.png", "/view"])
async def test_http_knows_nothing_of_other_jobs(path: str) -> None:
    async with open_simulated_http() as service, httpx.AsyncClient(base_url=service.base_url, verify=False) as client:
        assert (await client.get(path)).status_code == 404
        assert (await client.post("/cancel/none")).status_code == 404


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"job_id": 7}', b'{"job_id": "j", "payload": {"simulate": {"seconds": -1}}}'],
)
async def test_http_refuses_what_it_cannot_read(content: bytes) -> None:
    async with open_simulated_http() as service, httpx.AsyncClient(base_url=service.base_url, verify=False) as client:
        answer = await client.post("/process", content=content)
        assert answer.status_code == 400
        assert answer.json()["error"]
        assert service.jobs == {}


async def ask(url: str, *messages: Any) -> list[dict[str, Any]]:
    """Send messages after the greeting; the answers, up to the pong that ends the conversation."""
    answers = []
    async with open_websocket_url(url) as socket:
        for message in [*messages, {"type": "ping"}]:
            await socket.send_message(message if isinstance(message, str | bytes) else json.dumps(message))
        with trio.fail_after(60):
            while not answers or answers[-1]["type"] != "pong":
                answers.append(json.loads(await socket.get_message()))
    return answers


async def test_websocket_answers_questions() -> None:
    submitted = {"type": "simulation_job", "job_id": "j", "payload": {"simulate": {"seconds": 3600}}}
    async with open_simulated_websocket() as service:
        answers = await ask(
            service.url,
            submitted,
            {"type": "query_status", "job_id": "j"},
            {"type": "list_jobs"},
            {"type": "get_metrics"},
            {"type": "cancel_simulation", "job_id": "j"},
            {"type": "query_status", "job_id": "j"},
            {"type": "dance"},
            "no json",
        )
        by_type = {answer["type"]: answer for answer in answers}
        assert answers[0]["type"] == "simulation_ready"
        assert [a["status"] for a in answers if a["type"] == "job_status"] == ["running", "cancelled"]
        assert by_type["job_list"]["jobs"] == ["j"]
        assert by_type["simulation_metrics"]["jobs"] == 1
        assert by_type["simulation_cancelled"]["job_id"] == "j"
        assert len([a for a in answers if a["type"] == "error"]) == 2


async def test_websocket_cancels_the_jobs_of_a_socket_that_closes() -> None:
    submitted = {"type": "simulation_job", "job_id": "j", "payload": {"simulate": {"seconds": 3600}}}
    async with open_simulated_websocket() as service:
        await ask(service.url, submitted)
        with trio.fail_after(60):
            await service.until_cancelled(1)


async def test_websocket_survives_whatever_connects() -> None:
    async with open_simulated_websocket() as service:
        port = int(service.url.rsplit(":", 1)[1])
        for nonsense in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x00" * 100, b"GET / HTTP/9\r\n\r\n"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(nonsense)
        answers = await ask(service.url, b"\xff", '{"type": "simulation_job"}', "[]")
        assert [answer["type"] for answer in answers[1:]] == ["error", "simulation_error", "error", "pong"]


async def test_websocket_sends_large_images_beside_much_else() -> None:
    """Many tasks send on one socket, and it takes many writes to send an image."""
    payload = {"simulate": {"seconds": 0.1, "bytes": 1_000_000}, "save_assets": True}
    async with open_simulated_websocket() as service, open_websocket_url(service.url, max_message_size=2**24) as socket:
        for number in range(10):
            job = {"type": "simulation_job", "job_id": str(number), "payload": payload}
            await socket.send_message(json.dumps(job | {"config": {"progress_interval_ms": 1}}))
        done: set[str] = set()
        with trio.fail_after(60):
            while len(done) < 10:
                message = json.loads(await socket.get_message())
                if message["type"] == "simulation_complete":
                    done.add(message["job_id"])


@pytest.mark.parametrize(
    ("request_", "seconds", "steps"),
    [
        ({"job_id": "j"}, 7.0, 10),
        ({"job_id": "j", "config": {"processing_time_ms": 1500, "steps": 3}}, 1.5, 3),
        ({"job_id": "j", "config": {"processing_time_ms": 1500}, "payload": {"simulate": {"seconds": 0}}}, 0.0, 10),
        ({"job_id": "j", "payload": {"simulate": {"seconds": 2.5, "steps": 5}}}, 2.5, 5),
    ],
)
def test_how_long_a_job_takes(request_: dict[str, Any], seconds: float, steps: int) -> None:
    simulation = begin("s", request_, config="config", now=100.0, default_seconds=7.0)
    assert (simulation.seconds, simulation.steps) == (seconds, steps)
    assert simulation.state(100.0 + seconds) == "success"
    assert simulation.step(100.0 + seconds) == steps
    assert simulation.step(100.0 + seconds / 2) <= steps


def test_a_finished_job_cannot_be_cancelled() -> None:
    simulation = begin("s", {"job_id": "j"}, config="config", now=0.0, default_seconds=1.0)
    simulation.cancel(2.0)
    assert simulation.state(2.0) == "success"
    simulation.cancel(0.5)
    assert simulation.state(2.0) == "cancelled"
