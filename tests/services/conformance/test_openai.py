"""The connectors of the OpenAI API, against its fake."""

from __future__ import annotations

import base64
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import msgspec
import trio

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.openai.img2img import OpenAIImg2ImgConnector
from emp_trio.services.openai.responses_connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import AccountSettings, OpenAISettings
from emp_trio.services.openai.text import OpenAITextConnector
from emp_trio.services.openai.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.text_simple import OpenAITextSimpleConnector
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.openai import FakeOpenAI, Script, open_fake_openai
from emp_trio.testing.png import make_png

QUICK = Script(seconds=0.005)


class OpenAIHarness:
    """What is the same for all of them."""

    connector: Any

    def open_service(self) -> AbstractAsyncContextManager[FakeOpenAI]:
        return open_fake_openai(script=QUICK)

    def settings(self, service: FakeOpenAI, url: str) -> Any:
        reach = HttpSettings(base_url=url, retry_delay=0.002, max_connections=2, read_timeout=5.0)
        if "chat" in self.connector.Settings.__struct_fields__:
            return self.connector.Settings(openai=AccountSettings(api_key=service.api_key), http=reach)
        return self.connector.Settings(
            openai=OpenAISettings(api_key=service.api_key, poll_timeout=0.6, stream_read_timeout=2.0),
            http=reach,
            polling=PollingSettings(interval=0.002, attempts=10_000, errors_in_a_row=4),
        )

    def long_job(self, service: FakeOpenAI) -> Job:
        service.script = Script(seconds=3600)
        return self.job()  # type: ignore[attr-defined,no-any-return]

    def begun(self, service: FakeOpenAI) -> int:
        return service.billed

    def running(self, service: FakeOpenAI) -> int:
        statuses = [generation.status(trio.current_time()) for generation in service.generations.values()]
        return statuses.count("queued") + statuses.count("in_progress")


class TestText(OpenAIHarness, ConnectorConformance):
    connector = OpenAITextConnector
    payload: ClassVar = {"prompt": "hello"}

    def check(self, result: JobResult) -> None:
        assert result.data["text"].startswith("A")


class TestTextSimple(OpenAIHarness, ConnectorConformance):
    connector = OpenAITextSimpleConnector
    payload: ClassVar = {"prompt": "hello"}

    def check(self, result: JobResult) -> None:
        assert result.data["text"].startswith("A")


class TestResponses(OpenAIHarness, ConnectorConformance):
    connector = OpenAIResponsesConnector
    payload: ClassVar = {"input": "hello"}

    def check(self, result: JobResult) -> None:
        assert "A" in msgspec.json.encode(result.data).decode()


class TestText2Img(OpenAIHarness, ConnectorConformance):
    connector = OpenAIText2ImgConnector
    payload: ClassVar = {"prompt": "a cat"}

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]


class TestText2ImgByTheImagesApi(TestText2Img):
    adopts = False
    payload: ClassVar = {"prompt": "a cat", "approach": "direct"}


class TestImg2Img(OpenAIHarness, ConnectorConformance):
    connector = OpenAIImg2ImgConnector
    payload: ClassVar = {"prompt": "a cat", "images": [base64.b64encode(make_png()).decode()]}

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]
