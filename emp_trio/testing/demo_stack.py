"""The stage of ``emp-trio demo``: an embedded server, simulated services, storage with a CDN in front, a worker."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from emp_trio.assets.config import storage_settings
from emp_trio.errors import ConfigError, QueueError
from emp_trio.mapping import load_mapping, plan
from emp_trio.nursery import leading_error_raised
from emp_trio.queue.embedded import open_embedded_server
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Redactor, Secret
from emp_trio.services.registry import find_connector
from emp_trio.testing.azurite import Azurite, running_azurite
from emp_trio.testing.cdn import Cdn, open_cdn
from emp_trio.testing.comfyui import open_fake_comfyui
from emp_trio.testing.demo_scenarios import Scene
from emp_trio.testing.openai import FakeOpenAI, open_fake_openai
from emp_trio.testing.sim_http import open_simulated_http
from emp_trio.testing.sim_websocket import open_simulated_websocket
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.machine import Machine
from emp_trio.worker.run import run_machine
from emp_trio.worker.settings import worker_settings

_CDN_DELAY: Final = 0.02  # seconds per answer of the CDN
_CDN_MISSES: Final = 2  # times it does not know a new file yet
_CONTAINER: Final = "demo"


class Stopped(QueueError):
    """Somebody told the worker to stop (^C, SIGTERM) while it was needed."""


class Showcase(msgspec.Struct, kw_only=True):
    """The open stage: where the queue is, the CDN in front of the store, the fakes, the worker."""

    queue_url: str
    cdn: Cdn
    environment: dict[str, str]
    openai: FakeOpenAI
    machine: Machine

    def unplanned(self) -> list[str]:
        """What a real service would have complained about."""
        return [f"undocumented request to the fake OpenAI: {text}" for text in self.openai.violations]


@asynccontextmanager
async def open_showcase(scene: Scene, files: Path, cache: Path) -> AsyncIterator[Showcase]:
    """Open the stage; everything on it is gone when the block ends, but for the files.

    Args:
        files: folder of the local store.
        cache: where Azurite is installed, or will be, if the scene needs it.

    Raises:
        Stopped: the worker was told to stop before the block ended.
        QueueError: the worker ended by itself.
        ConfigError: the embedded server does not start, or Azurite can't be installed.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_embedded_server())
        environment: dict[str, str] = {}
        openai = await stack.enter_async_context(open_fake_openai())
        environment |= {"OPENAI_API_KEY": openai.api_key.reveal(), "OPENAI_BASE_URL": openai.base_url}
        if "http" in scene.fakes:
            http = await stack.enter_async_context(open_simulated_http())
            environment["SIMULATION_HTTP_URL"] = http.base_url
        if "websocket" in scene.fakes:
            websocket = await stack.enter_async_context(open_simulated_websocket())
            environment["SIMULATION_WEBSOCKET_URL"] = websocket.url
        if "comfyui" in scene.fakes:
            comfyui = await stack.enter_async_context(open_fake_comfyui())
            environment["COMFYUI_WS_URL"] = f"ws{comfyui.url.removeprefix('http')}/ws"
        if scene.store == "azure":
            azurite = await stack.enter_async_context(_open_azurite(cache))
            environment |= azurite.environment(_CONTAINER)
            cdn = await stack.enter_async_context(open_cdn(f"{azurite.endpoint}/{_CONTAINER}"))
        else:
            environment |= {"CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": str(files)}
            cdn = await stack.enter_async_context(open_cdn(files))
        cdn.delay, cdn.missing = _CDN_DELAY, _CDN_MISSES
        environment["CLOUD_CDN_URL"] = cdn.url
        machine = await stack.enter_async_context(_open_machine(scene, server.url, environment))
        yield Showcase(queue_url=server.url, cdn=cdn, environment=environment, openai=openai, machine=machine)


@asynccontextmanager
async def _open_azurite(cache: Path) -> AsyncIterator[Azurite]:
    running = running_azurite(cache)
    try:
        azurite = await trio.to_thread.run_sync(running.__enter__)
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    try:
        await trio.to_thread.run_sync(partial(azurite.create_container, _CONTAINER, public=True))
        yield azurite
    finally:
        with trio.CancelScope(shield=True):  # it ends within its own stop_limit
            await trio.to_thread.run_sync(running.__exit__, None, None, None)


@asynccontextmanager
async def _open_machine(scene: Scene, url: str, environment: dict[str, str]) -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="emp-trio-") as folder:
        mapping = Path(folder) / "mapping.json"
        mapping.write_text(json.dumps(scene.mapping()))
        loaded = load_mapping(mapping)
    planned = plan(loaded.checked(), scene.workers, env=environment, gpus=0, find_connector=find_connector)
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
    with leading_error_raised():
        async with trio.open_nursery() as nursery:
            machine = await nursery.start(run)
            yield machine
            closing = True
            machine.shutdown.stop("the demo is over")
