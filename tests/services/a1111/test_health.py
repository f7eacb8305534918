"""Whether an A1111 can take work, and where it is."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.mapping import load_mapping, plan
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.services.a1111.settings import A1111Settings, located
from emp_trio.services.registry import find_connector
from emp_trio.testing.a1111 import FakeA1111
from tests.services.a1111.support import HELD, held, open_a1111

FINE = {"system": {"free": 1}}


async def test_a_server_that_is_fine(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    async with open_a1111(a1111.base_url, connector_context) as connector:
        assert (await connector.health()).healthy
    assert [request.path for request in a1111.requests] == ["/sdapi/v1/memory"]  # the lightest call there is


async def test_a_busy_server_is_not_a_dead_one(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.script = HELD
    a1111.begin("txt2img", {})
    await a1111.until(lambda: held(a1111))
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector:
            assert (await connector.health()).healthy


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"ram": {"free": 1}, "cuda": {"error": "CUDA error: device lost"}}, "its cuda: CUDA error: device lost"),
        ({"ram": {"error": "no psutil"}, "cuda": FINE}, "its ram: no psutil"),
        ({"ram": FINE, "cuda": None}, "its cuda"),
        ({"status": "ok"}, "no A1111"),
        ([], "no A1111"),
    ],
)
async def test_a_server_with_trouble_inside(
    a1111: FakeA1111, connector_context: ConnectorContext, memory: Any, said: str
) -> None:
    a1111.memory = memory
    async with open_a1111(a1111.base_url, connector_context) as connector:
        health = await connector.health()
    assert not health.healthy
    assert said in health.detail


async def test_a_web_ui_without_its_api(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    for path in ("/sdapi/v1/memory", "/sdapi/v1/sd-models"):
        a1111.inject(path, status=404, body={"detail": "Not Found"}, times=10)
    async with open_a1111(a1111.base_url, connector_context) as connector:
        health = await connector.health()
    assert not health.healthy
    assert "--api" in health.detail


@pytest.mark.parametrize(
    ("a1111", "base_url", "url"),
    [
        ({}, "", "http://localhost:7860"),
        ({"host": "gpu", "port": 7861, "secure": True}, "", "https://gpu:7861"),
        ({"host": "::1"}, "", "http://[::1]:7860"),
        ({"host": "https://gpu.example/sd/"}, "", "https://gpu.example/sd"),
        ({"host": "gpu"}, "https://ann:pw@proxy.example/sd/", "https://proxy.example/sd"),
    ],
)
def test_where_a_server_is(a1111: dict[str, Any], base_url: str, url: str) -> None:
    made = located(A1111WebSocketConnector.Settings(a1111=A1111Settings(**a1111), http=HttpSettings(base_url=base_url)))
    assert made.http.base_url == url
    assert made.a1111.username == ("ann" if "@" in base_url else "")


@pytest.mark.parametrize(
    ("env", "ports"),
    [
        ({}, [7860, 7861, 7862]),
        ({"A1111_BASE_PORT": "9000", "A1111_PORT_INCREMENT": "10"}, [9000, 9010, 9020]),
        ({"A1111_BASE_PORT": "9000", "A1111_PORT": "9500"}, [9500, 9501, 9502]),
    ],
)
def test_every_slot_of_the_shipped_mapping_has_a_server_of_its_own(env: dict[str, str], ports: list[int]) -> None:
    found = plan(load_mapping(None).checked(), "a1111:auto", env=env, gpus=3, find_connector=find_connector)
    located_ = [located(lane.routes["a1111"].settings) for lane in found.workers]
    assert [made.http.base_url for made in located_] == [f"http://localhost:{port}" for port in ports]


def test_the_environment_says_how_to_log_in() -> None:
    env = {"A1111_HOST": "gpu", "A1111_USERNAME": "ann", "A1111_PASSWORD": "pw", "A1111_BASE_URL": "https://x.example"}
    found = plan(load_mapping(None).checked(), "a1111:1", env=env, gpus=1, find_connector=find_connector)
    made = located(found.workers[0].routes["a1111"].settings)
    assert (made.http.base_url, made.a1111.host, made.a1111.username) == ("https://x.example", "gpu", "ann")
    assert made.a1111.password.reveal() == "pw"
    assert made.limits.max_concurrent_jobs == 1
