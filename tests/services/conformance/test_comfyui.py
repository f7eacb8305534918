"""The ComfyUI connector, against the fake."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.fetch import FetchSettings
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.secrets import Secret
from emp_trio.services.comfyui.connectors import ComfyUIRemoteConnector, ComfyUIWebSocketConnector
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.connector import Connector
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from emp_trio.testing.conformance import ConnectorConformance
from tests.services.comfyui.support import FAST, FOLLOW, image, sleeping


class TestComfyUI(ConnectorConformance):
    connector: ClassVar[type[Connector]] = ComfyUIWebSocketConnector
    payload: ClassVar = {"workflow": image()}
    cuts = cancels = wrongs = 10

    def open_service(self) -> AbstractAsyncContextManager[FakeComfyUI]:
        return open_fake_comfyui()

    def settings(self, service: FakeComfyUI, url: str) -> Any:
        return ComfyUIWebSocketConnector.Settings(
            comfyui=ComfyUISettings(host="localhost", **FAST),
            http=HttpSettings(base_url=url, retry_delay=0.01, read_timeout=3.0),
            websocket=WebSocketSettings(url=""),
            follow=FOLLOW,
            fetch=FetchSettings(),
        )

    def long_job(self, service: FakeComfyUI) -> Job:
        return self.job(payload={"workflow": sleeping(steps=1000)})

    def begun(self, service: FakeComfyUI) -> int:
        """The canary's prompts, which cost nothing, have ids of their own."""
        return sum(count for prompt, count in service.executions.items() if uuid.UUID(prompt).version == 5)

    def running(self, service: FakeComfyUI) -> int:
        return len(service.engine.pending) + (service.engine.running is not None)

    def odd(self, answer: Any) -> Iterable[Any]:
        """Of the history; a prompt's id is another one in each run, so those of the answer to a prompt go first."""
        if isinstance(answer, dict) and "prompt_id" in answer:
            yield {"number": 1, "node_errors": {}}
            yield {"prompt_id": None, "number": "first", "node_errors": []}
            yield {}

    def check(self, result: JobResult) -> None:
        [file] = result.output_files
        assert file.type == "image"


class TestComfyUIRemote(TestComfyUI):
    connector = ComfyUIRemoteConnector

    def settings(self, service: FakeComfyUI, url: str) -> Any:
        service.demands = {"authorization": "Bearer conformance-key"}
        return ComfyUIRemoteConnector.Settings(
            comfyui=ComfyUISettings(host="localhost", api_key=Secret("conformance-key"), **FAST),
            http=HttpSettings(base_url=url, retry_delay=0.01, read_timeout=3.0),
            websocket=WebSocketSettings(url=""),
            follow=FOLLOW,
            fetch=FetchSettings(),
        )
