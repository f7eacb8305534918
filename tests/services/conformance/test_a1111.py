"""The A1111 connector, against the fake."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.secrets import Secret
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.services.a1111.settings import A1111Settings
from emp_trio.testing.a1111 import FakeA1111, Script, open_fake_a1111
from emp_trio.testing.conformance import ConnectorConformance


class TestA1111(ConnectorConformance):
    connector = A1111WebSocketConnector
    payload: ClassVar = {"prompt": "a lighthouse", "override_settings": {"sd_model_checkpoint": "dreamy"}}

    def open_service(self) -> AbstractAsyncContextManager[FakeA1111]:
        return open_fake_a1111()

    def settings(self, service: FakeA1111, url: str) -> Any:
        service.api_auth = "ann", Secret("conformance-password")
        return A1111WebSocketConnector.Settings(
            a1111=A1111Settings(
                username="ann",
                password=Secret("conformance-password"),
                call_timeout=self.answer_timeout,
                answer_timeout=self.answer_timeout,
                progress_interval=0.01,
                interrupt_interval=0.01,
                cleanup_timeout=1.0,
            ),
            http=HttpSettings(base_url=url, retry_delay=0.002, max_connections=4),
        )

    def long_job(self, service: FakeA1111) -> Job:
        service.script = Script(hold_at=2)
        return self.job()

    def begun(self, service: FakeA1111) -> int:
        return len(service.work)

    def running(self, service: FakeA1111) -> int:
        return sum(work.end in ("waiting", "running") for work in service.work)

    def odd(self, answer: Any) -> Iterable[Any]:
        if isinstance(answer, dict) and answer.get("images"):
            image = answer["images"][0]
            yield answer | {"images": [f"data:image/png;base64,{image}"]}
            yield answer | {"parameters": None}

    def check(self, result: JobResult) -> None:
        assert result.data["model_used"] == "dreamy"
        assert len(result.output_files) == 1
