"""Connectors of ComfyUI, opened against the fake with times that suit a test; and graphs for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.services.comfyui.connectors import ComfyUIWebSocketConnector
from emp_trio.services.comfyui.graph import prompt_id_of
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.comfyui.tracker import FollowSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.previews import PreviewSettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI

ID = prompt_id_of("job-1")

FOLLOW = FollowSettings(
    poll_interval=0.5, poll_soon=0.1, marker_wait=0.1, history_wait=0.5, outage_timeout=0.5, busy_timeout=2.0
)

FAST: dict[str, Any] = {
    "call_timeout": 2.0,
    "cleanup_timeout": 1.0,
    "canary_timeout": 1.0,
    "canary_interval": 0.1,
    "reconnect_delay": 0.02,
    "reconnect_cap": 0.1,
}


@asynccontextmanager
async def open_comfyui(
    fake: FakeComfyUI,
    connector_context: ConnectorContext,
    *,
    cls: type[Any] = ComfyUIWebSocketConnector,
    follow: dict[str, Any] | None = None,
    http: dict[str, Any] | None = None,
    fetch: dict[str, Any] | None = None,
    websocket: dict[str, Any] | None = None,
    preview: dict[str, Any] | None = None,
    quiet: bool = True,
    **comfyui: Any,
) -> AsyncIterator[Any]:
    """Open a connector against the fake, and wait until the server has been tried out.

    Args:
        quiet: let the connector's canary fly before the block begins.
        comfyui, follow, http, fetch, websocket, preview: settings.
    """
    settings = cls.Settings(
        comfyui=ComfyUISettings(**({"host": "localhost"} | FAST | comfyui)),
        http=HttpSettings(**({"base_url": fake.url, "retry_delay": 0.01} | (http or {}))),
        websocket=WebSocketSettings(**({"url": ""} | (websocket or {}))),
        follow=msgspec.structs.replace(FOLLOW, **(follow or {})),
        fetch=FetchSettings(**({"input_allow_private": True} | (fetch or {}))),
        preview=PreviewSettings(**(preview or {})),
    )
    async with open_connector(cls, settings, connector_context) as connector:
        if quiet:
            with trio.fail_after(60):
                await connector.server.probe.verdict()
                await fake.until(lambda: connector.server.client_id in fake.process.sockets)
        yield connector


def image(color: int = 1, prefix: str = "out") -> dict[str, Any]:
    """A graph that saves an image."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def sleeping(seconds: float = 3600.0, steps: int = 0, **more: Any) -> dict[str, Any]:
    """A graph that takes its time; without steps it does not hear an interrupt while it does."""
    sleep = {"class_type": "RigSleep", "inputs": {"seconds": seconds, "steps": steps} | more}
    return {"1": sleep, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "slow"}}}


def bodies(fake: FakeComfyUI) -> list[dict[str, Any]]:
    """Every prompt that was sent, without the canaries."""
    sent = [msgspec.json.decode(request.body) for request in fake.of("POST /prompt")]
    return [body for body in sent if body["prompt_id"] != body["client_id"]]


def runs(fake: FakeComfyUI) -> int:
    """How often the prompt of ``job-1`` was started."""
    return fake.executions[ID]


async def running(fake: FakeComfyUI, prompt_id: str = ID) -> None:
    """Wait until a prompt runs a node."""
    await fake.until(
        lambda: fake.engine.running is not None and fake.engine.running.prompt_id == prompt_id and fake.engine.node
    )


async def waiting(fake: FakeComfyUI, prompt_id: str = ID) -> None:
    """Wait until a prompt waits in the queue."""
    await fake.until(lambda: any(item.prompt_id == prompt_id for item in fake.engine.pending))


async def disturbed(
    connector: Any, a_job: Job, disturb: Callable[[], Awaitable[object]], context: FakeAttempt | None = None
) -> JobResult:
    """Run an attempt while ``disturb`` runs beside it; an error of the attempt comes out alone."""
    failed: list[EmpTrioError] = []
    results: list[JobResult] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disturb)
        try:
            results.append(await run_job(connector, a_job, context))
        except EmpTrioError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return results[0]


async def cut_short(connector: Any, a_job: Job, fake: FakeComfyUI, context: FakeAttempt) -> None:
    """Run an attempt until its prompt runs a node, then end it as its reporter says."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, a_job, context)
        await running(fake)
        nursery.cancel_scope.cancel()
