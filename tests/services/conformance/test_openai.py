"""The connectors of the OpenAI API, against its fake."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import msgspec
import trio

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.services.openai.images.img2img import OpenAIImg2ImgConnector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.services.openai.settings import AccountSettings, OpenAISettings
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.openai import FakeOpenAI, Script, open_fake_openai
from emp_trio.testing.png import make_png

QUICK = Script(seconds=0.005)


def odd_responses(answer: Any) -> Iterator[Any]:
    """A finished response as gateways say it, or with another end."""
    if not isinstance(answer, dict) or not answer.get("output"):
        return
    images = [item for item in answer["output"] if item["type"] == "image_generation_call"]
    ends: list[dict[str, Any]] = [
        {"status": "failed", "error": {"code": "server_error", "message": "Too late."}},
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "incomplete", "incomplete_details": {"reason": "something_new"}},
        {"status": "expired"},
        {"status": "succeeded"},
        {"status": "Completed", "usage": None},
        {"status": "something_new"},
        {"status": "CANCELED"},
    ]
    yield from (answer | end for end in ends)
    yield {name: value for name, value in answer.items() if name not in ("status", "usage", "tool_usage")}
    for item in images:
        yield answer | {"output": item}
        others = [other for other in answer["output"] if other is not item]
        data = f"data:image/png;base64,{item['result']}"
        message = {"type": "message", "role": "assistant", "status": "completed"}
        broken = item | {"id": "ig_broken", "result": "no base64 at all"}
        refused = item | {"result": None, "status": "failed", "error": {"code": "moderation_blocked", "message": "No."}}
        for changed in (
            [item | {"result": data, "status": "failed"}],
            [item | {"result": [item["result"]]}],
            [item | {"result": {"b64_json": item["result"]}}],
            [None, 7, "words", item],
            [item | {"result": data, "output_format": "new"}],
            [message | {"content": [{"type": "output_image", "image_url": data}]}],
            [message | {"content": [{"type": "image_url", "image_url": {"url": data}}]}],
            [broken, item],
            [refused, item],
        ):
            yield answer | {"output": [*others, *changed]}


def odd_images(answer: Any) -> Iterator[Any]:
    """An answer of the Images API as gateways say it."""
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        return
    data = answer["data"][0]["b64_json"]
    place = f"data:image/png;base64,{data}"
    for entries in (
        [{"b64_json": place}],
        [{"b64_json": None, "url": place}],
        [{"image_url": {"url": place}}],
        [{"b64": data}],
        [{"b64_json": data}, {"b64_json": "no base64 at all"}, {"error": "moderated"}],
        [data],
        [[{"b64_json": data}]],
        {"data": [{"b64_json": data}]},
        place,
    ):
        yield answer | {"data": entries}
    yield answer | {"error": {"code": "server_error", "message": "Too late."}}
    yield {"images": [data]}
    yield {"result": {"images": [{"url": place.replace("data:", "DATA:")}]}}
    yield [{"b64_json": "\n".join(data[start : start + 76] for start in range(0, len(data), 76))}]


def odd_completions(answer: Any) -> Iterator[Any]:
    """A whole chat completion as other servers say it."""
    if not isinstance(answer, dict) or not answer.get("choices"):
        return
    [choice] = answer["choices"]
    text = choice["message"]["content"]
    for message in (
        {"role": "assistant", "content": [{"type": "text", "text": text}]},
        {"role": "assistant", "content": {"type": "text", "text": text}},
        {"content": text, "tool_calls": None, "refusal": ""},
        text,
    ):
        yield answer | {"choices": [choice | {"message": message}]}
    for end in ("eos", "abort", "error", "insufficient_system_resource", "something_new", "length", None):
        yield answer | {"choices": [choice | {"finish_reason": end}]}
    yield answer | {"choices": choice}
    yield answer | {"error": {"message": "Too late.", "code": 500}}
    yield answer | {"usage": None, "model": None, "id": None, "object": "something.new"}
    yield [answer]
    yield {"choices": [{"text": text, "finish_reason": "stop"}]}


def odd_streams(answer: Any) -> Iterator[Any]:
    """A stream of chat pieces as other servers say it, or with something wrong at its end."""
    if not isinstance(answer, list) or not any(piece.get("choices") for piece in answer):
        return
    pieces = [piece for piece in answer if piece.get("choices")]
    ending = [piece for piece in pieces if piece["choices"][0].get("finish_reason")]
    words = [piece for piece in pieces if piece not in ending]
    for end in ("eos", "abort", "error", "insufficient_system_resource", "something_new", "length"):
        yield [*words, *(piece | {"choices": [piece["choices"][0] | {"finish_reason": end}]} for piece in ending)]
    yield words  # nobody says that it is the end, but for [DONE]
    yield pieces  # without usage
    yield [*words, {"error": {"message": "Too late.", "code": 500}}]
    yield [*words, {"object": "error", "message": "Too late."}]
    yield [{"choices": [], "prompt_filter_results": []}, *answer]
    yield [piece | {"choices": piece["choices"][0]} for piece in pieces]
    text = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in words)
    message = {"role": "assistant", "content": text}
    yield {"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"}]}
    yield [{"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}]
    yield [{"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": text}]}}]}, *ending]


class OpenAIHarness:
    """What is the same for all of them."""

    connector: Any
    answer_timeout: float

    def open_service(self) -> AbstractAsyncContextManager[FakeOpenAI]:
        return open_fake_openai(script=QUICK)

    def settings(self, service: FakeOpenAI, url: str) -> Any:
        reach = HttpSettings(base_url=url, retry_delay=0.002, max_connections=2, read_timeout=5.0)
        if "chat" in self.connector.Settings.__struct_fields__:
            return self.connector.Settings(openai=AccountSettings(api_key=service.api_key), http=reach)
        return self.connector.Settings(
            openai=OpenAISettings(
                api_key=service.api_key,
                poll_timeout=0.6 * self.answer_timeout,
                stream_read_timeout=2 * self.answer_timeout,
            ),
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

    def odd(self, answer: Any) -> Iterable[Any]:
        return (*odd_streams(answer), *odd_completions(answer))

    def check(self, result: JobResult) -> None:
        assert result.data["text"].startswith("A")


class TestTextSimple(OpenAIHarness, ConnectorConformance):
    connector = OpenAITextSimpleConnector
    payload: ClassVar = {"prompt": "hello"}

    def odd(self, answer: Any) -> Iterable[Any]:
        return (*odd_streams(answer), *odd_completions(answer))

    def check(self, result: JobResult) -> None:
        assert result.data["text"].startswith("A")


class TestResponses(OpenAIHarness, ConnectorConformance):
    connector = OpenAIResponsesConnector
    payload: ClassVar = {"input": "hello"}

    def odd(self, answer: Any) -> Iterable[Any]:
        return odd_responses(answer)

    def check(self, result: JobResult) -> None:
        assert "A" in msgspec.json.encode(result.data).decode()


class TestText2Img(OpenAIHarness, ConnectorConformance):
    connector = OpenAIText2ImgConnector
    payload: ClassVar = {"prompt": "a cat"}

    def odd(self, answer: Any) -> Iterable[Any]:
        return (*odd_responses(answer), *odd_images(answer))

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]


class TestText2ImgByTheImagesApi(TestText2Img):
    adopts = False
    payload: ClassVar = {"prompt": "a cat", "approach": "direct"}


class TestImg2Img(OpenAIHarness, ConnectorConformance):
    connector = OpenAIImg2ImgConnector
    payload: ClassVar = {"prompt": "a cat", "images": [base64.b64encode(make_png()).decode()]}

    def odd(self, answer: Any) -> Iterable[Any]:
        return odd_responses(answer)

    def check(self, result: JobResult) -> None:
        assert [file.type for file in result.output_files] == ["image"]


class TestImg2ImgByTheImagesApi(TestImg2Img):
    adopts = False
    payload: ClassVar = TestImg2Img.payload | {"approach": "direct"}

    def odd(self, answer: Any) -> Iterable[Any]:
        return odd_images(answer)
