"""The Gemini connector, in both of its forms, against the fake."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import msgspec
import trio

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.gemini.connector import GeminiConnector
from emp_trio.services.gemini.settings import HTTP, GeminiSettings
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.gemini import FakeGemini, Script, open_fake_gemini


class TestGemini(ConnectorConformance):
    connector = GeminiConnector
    payload: ClassVar[dict[str, Any]] = {"prompt": "a cat"}

    def open_service(self) -> AbstractAsyncContextManager[FakeGemini]:
        return open_fake_gemini(script=Script(seconds=0.005))

    def settings(self, service: FakeGemini, url: str) -> Any:
        reach = {"base_url": url, "retry_delay": 0.002, "max_connections": 2, "read_timeout": 5.0, "verify_tls": False}
        return GeminiConnector.Settings(
            gemini=GeminiSettings(api_key=service.api_key),
            http=msgspec.structs.replace(HTTP, **reach),
            polling=PollingSettings(interval=0.002, attempts=400),
        )

    def long_job(self, service: FakeGemini) -> Job:
        service.script = Script(seconds=3600)
        return self.job()

    def begun(self, service: FakeGemini) -> int:
        return service.billed

    def running(self, service: FakeGemini) -> int:
        now = trio.current_time()
        return sum(generation.status(now) == "in_progress" for generation in service.generations.values())

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]


class TestGeminiByGenerateContent(TestGemini):
    adopts = False
    payload: ClassVar = {"prompt": "a cat", "api": "generate_content"}

    def running(self, service: FakeGemini) -> int:
        return 0  # it has no id: whether it runs on after its connection was closed, nobody can ask or change
