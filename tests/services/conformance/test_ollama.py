"""The Ollama connector, against the fake."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.ollama.connector import OllamaConnector
from emp_trio.services.ollama.settings import OllamaSettings
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.ollama import FakeOllama, Script, open_fake_ollama


class TestOllama(ConnectorConformance):
    connector = OllamaConnector
    payload: ClassVar = {"prompt": "hello"}

    def open_service(self) -> AbstractAsyncContextManager[FakeOllama]:
        return open_fake_ollama()

    def settings(self, service: FakeOllama, url: str) -> Any:
        return OllamaConnector.Settings(
            ollama=OllamaSettings(line_timeout=self.answer_timeout),
            http=HttpSettings(base_url=url, retry_delay=0.002, max_connections=2, timeout=2 * self.answer_timeout),
        )

    def job(self, **fields: Any) -> Job:
        return super().job(type="text_generation", **fields)

    def long_job(self, service: FakeOllama) -> Job:
        service.script = Script(stall_after=2)
        return self.job()

    def begun(self, service: FakeOllama) -> int:
        return len(service.generations)

    def running(self, service: FakeOllama) -> int:
        return sum(work.end == "running" for work in service.work)

    def odd(self, answer: Any) -> Iterable[Any]:
        if not isinstance(answer, list) or "response" not in answer[-1]:
            return
        *words, end = answer
        text = "".join(line["response"] for line in words)
        for reason in ("length", "something_new", "error", None):
            yield [*words, end | {"done_reason": reason}]
        yield [*words, {"done": True}]
        yield [*words, {"error": "the runner has stopped"}]
        yield [*words, end | {"eval_count": None, "total_duration": "long", "context": None}]
        yield end | {"response": text}
        yield [end | {"response": text}]
        yield [end | {"response": "", "message": {"role": "assistant", "content": text}}]

    def check(self, result: JobResult) -> None:
        assert result.data["text"]
