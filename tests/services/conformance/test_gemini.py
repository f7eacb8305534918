"""The Gemini connector, in both of its forms, against the fake."""

from __future__ import annotations

from collections.abc import Iterable
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

    def odd(self, answer: Any) -> Iterable[Any]:
        """Another end, other names, only thoughts, a broken image beside the good one."""
        if not isinstance(answer, dict):
            return
        if answer.get("steps"):
            image = answer["steps"][-1]["content"][-1]
            for status in ("completed", "incomplete", "failed", "budget_exceeded", "cancelled", "expired"):
                yield answer | {"status": status, "errors": [{"code": "INTERNAL", "message": "Too late."}]}
            for content in (
                [image | {"thought": True}],
                [{"type": "image", "image": {"data": image["data"], "mimeType": "image/png"}}],
                [image | {"mime_type": "application/octet-stream"}],
                [image | {"data": "no base64 at all"}, image],
            ):
                yield answer | {"steps": [{"type": "model_output", "content": content}]}
            yield {"status": "completed", "output_image": image}
        if answer.get("candidates"):
            yield [answer]
            yield [{"candidates": [{"content": {"parts": [{"text": "Here"}]}}]}, answer]
            yield {"response": answer}
            yield answer | {"error": {"code": 500, "message": "Too late."}}
            yield answer | {"candidates": answer["candidates"][0]}
            yield answer | {"promptFeedback": {"blockReason": "SAFETY"}}
        for candidate in answer.get("candidates", ()):
            for content in (candidate["content"]["parts"], [candidate["content"]], candidate["content"]["parts"][-1]):
                yield answer | {"candidates": [candidate | {"content": content}]}
            image = candidate["content"]["parts"][-1]
            data, kind = image["inlineData"]["data"], image["inlineData"]["mimeType"]
            for finish in ("STOP", None, "MAX_TOKENS", "OTHER", "SAFETY", "FINISH_REASON_UNSPECIFIED", "SOMETHING_NEW"):
                yield answer | {"candidates": [candidate | {"finishReason": finish}]}
            for parts in (
                [{"text": "Thinking.", "thought": True}, image | {"thought": True}],
                [{"inline_data": {"mime_type": kind, "data": data}}],
                [{"inlineData": {"data": f"data:{kind};base64,{data}"}}],
                [{"inlineData": {"mimeType": "image/x-unheard-of", "data": data}}],
                [{"inlineData": {"mimeType": kind, "data": "no base64 at all"}}, image],
                [image, {"text": "I had more to say."}],
            ):
                yield answer | {"candidates": [candidate | {"content": {"parts": parts}}]}
            empty = {"finishReason": "IMAGE_SAFETY", "index": 1}
            yield answer | {"candidates": [empty, candidate]}

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]


class TestGeminiByGenerateContent(TestGemini):
    adopts = False
    payload: ClassVar = {"prompt": "a cat", "api": "generate_content"}

    def running(self, service: FakeGemini) -> int:
        return 0  # it has no id: whether it runs on after its connection was closed, nobody can ask or change
