"""The stage of ``emp-trio demo``: an embedded server, simulated services, storage with a CDN in front, a real worker,
and the batch of jobs that is put on it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import trio

from emp_trio.assets.config import storage_settings
from emp_trio.errors import QueueError, leading_error
from emp_trio.mapping import load_mapping, plan
from emp_trio.queue.embedded import open_embedded_server
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Redactor, Secret
from emp_trio.services.registry import find_connector
from emp_trio.testing.cdn import open_cdn
from emp_trio.testing.openai import FakeOpenAI, open_fake_openai
from emp_trio.testing.sim_http import open_simulated_http
from emp_trio.testing.sim_websocket import open_simulated_websocket
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.machine import Machine, run_machine
from emp_trio.worker.settings import worker_settings

WORKERS: Final = "http:3,websocket:3,openai:4"
_LARGE: Final = 8 * 2**20
_CDN_DELAY: Final = 0.02  # seconds per answer of the CDN
_CDN_MISSES: Final = 2  # times it does not know a new file yet


class Stopped(QueueError):
    """Somebody told the worker to stop (^C, SIGTERM) while it was needed."""


class PlannedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the batch: how it is to end, and how many files it is to leave."""

    id: str
    type: str
    payload: dict[str, Any]
    ends: Literal["completed", "failed", "cancelled"] = "completed"
    files: int = 1


def batch(count: int) -> list[PlannedJob]:
    """``count`` jobs: each kind once, the special ones among them, then the ordinary kinds in turn."""
    ordinary: list[tuple[str, dict[str, Any], str, int]] = [
        ("openai_image", {"prompt": "a lighthouse in a storm", "metadata": _openai(seconds=3.0)}, "completed", 1),
        ("simulation_http", {"save_assets": True, "simulate": {"seconds": 2.0, "steps": 20}}, "completed", 1),
        ("simulation_websocket", {"save_assets": True, "simulate": {"seconds": 2.5, "steps": 25}}, "completed", 1),
        ("openai_responses", {"input": "Why is the sky blue?", "metadata": _openai(seconds=2.0)}, "completed", 1),
    ]
    special: list[tuple[str, dict[str, Any], str, int]] = [
        (
            "simulation_http",
            {"simulate": {"seconds": 1.0, "fail": "the simulated GPU is on fire", "retryable": False}},
            "failed",
            0,
        ),
        ("simulation_websocket", {"simulate": {"seconds": 300.0, "steps": 300}}, "cancelled", 0),
        ("simulation_http", {"save_assets": True, "simulate": {"seconds": 1.0, "bytes": _LARGE}}, "completed", 1),
    ]
    kinds = [*ordinary, *special]
    kinds += [ordinary[number % len(ordinary)] for number in range(max(0, count - len(kinds)))]
    jobs: list[PlannedJob] = []
    for number, (job_type, payload, ends, files) in enumerate(kinds[:count], start=1):
        note = {"failed": "-to-fail", "cancelled": "-to-cancel"}.get(ends, "-large" if "bytes" in str(payload) else "")
        name = f"demo-{number:02d}-{job_type}{note}"
        jobs.append(PlannedJob(id=name, type=job_type, payload=payload, ends=ends, files=files))  # type: ignore[arg-type]
    return jobs


def _openai(*, seconds: float) -> dict[str, str]:
    return {"fake_openai": json.dumps({"queued": 0.5, "seconds": seconds})}


def _mapping() -> dict[str, Any]:
    """Workers of the demo: each simulated service under a job type of its own."""
    services = {
        "http": "SimulationHttpConnector",
        "websocket": "SimulationWebsocketConnector",
        "openai-image": "OpenAIText2ImgConnector",
        "openai-responses": "OpenAIResponsesConnector",
    }
    routes = {
        "http": {"simulation_http": "http"},
        "websocket": {"simulation_websocket": "websocket"},
        "openai": {"openai_image": "openai-image", "openai_responses": "openai-responses"},
    }
    return {
        "workers": {
            name: {
                "services": sorted(set(types.values())),
                "is_gpu_bound": False,
                "job_service_required_map": [
                    {"job_service_required": job_type, "worker_service": service} for job_type, service in types.items()
                ],
            }
            for name, types in routes.items()
        },
        "connectors": {name: {"path": "builtin.js", "description": ""} for name in services.values()},
        "services": {name: {"connector": connector, "type": "external"} for name, connector in services.items()},
    }


class Showcase(msgspec.Struct, kw_only=True):
    """The open stage: where the queue is, where files go, the fake OpenAI, the worker."""

    queue_url: str
    files: Path
    openai: FakeOpenAI
    machine: Machine

    def unplanned(self) -> list[str]:
        """What a real service would have complained about."""
        return [f"undocumented request to the fake OpenAI: {text}" for text in self.openai.violations]


@asynccontextmanager
async def open_showcase(files: Path) -> AsyncIterator[Showcase]:
    """Open the stage; everything on it is gone when the block ends, but for the files.

    Args:
        files: folder of the local store.

    Raises:
        Stopped: the worker was told to stop before the block ended.
        QueueError: the worker ended by itself.
        ConfigError: the embedded server does not start.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_embedded_server())
        http = await stack.enter_async_context(open_simulated_http())
        websocket = await stack.enter_async_context(open_simulated_websocket())
        openai = await stack.enter_async_context(open_fake_openai())
        cdn = await stack.enter_async_context(open_cdn(files))
        cdn.delay, cdn.missing = _CDN_DELAY, _CDN_MISSES
        environment = {
            "SIMULATION_HTTP_URL": http.base_url,
            "SIMULATION_WEBSOCKET_URL": websocket.url,
            "OPENAI_API_KEY": openai.api_key.reveal(),
            "OPENAI_BASE_URL": openai.base_url,
            "CLOUD_STORAGE_PROVIDER": "local",
            "LOCAL_STORAGE_PATH": str(files),
            "CLOUD_CDN_URL": cdn.url,
        }
        machine = await stack.enter_async_context(_open_machine(server.url, environment))
        yield Showcase(queue_url=server.url, files=files, openai=openai, machine=machine)


@asynccontextmanager
async def _open_machine(url: str, environment: dict[str, str]) -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="emp-trio-") as folder:
        mapping = Path(folder) / "mapping.json"
        mapping.write_text(json.dumps(_mapping()))
        loaded = load_mapping(mapping)
    planned = plan(loaded.checked(), WORKERS, env=environment, gpus=0, find_connector=find_connector)
    settings = worker_settings({}, machine_id="demo", drain=0.1)
    storage = storage_settings(environment)

    async def run(*, task_status: trio.TaskStatus[Machine]) -> None:
        await run_machine(
            planned,
            settings,
            RedisSettings(url=Secret(url)),
            storage,
            environment=environment,
            hardware=Hardware(),
            redactor=Redactor(planned.secrets),
            task_status=task_status,
        )
        if not closing:
            raise Stopped("the worker was stopped")

    closing = False
    try:
        async with trio.open_nursery() as nursery:
            machine = await nursery.start(run)
            yield machine
            closing = True
            machine.drain.stop("the demo is over")
    except ExceptionGroup as group:
        raise leading_error(group) from group
