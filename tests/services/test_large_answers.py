"""What a service says at length is read, judged and masked beside the loop, by every connector."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.secrets import redactor
from emp_trio.services.error_shapes import words_of
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.services.redaction import excerpt_of
from emp_trio.services.shared_socket import SharedSocket
from emp_trio.sizes import LARGE
from emp_trio.testing.a1111 import open_fake_a1111
from emp_trio.testing.attempt import run_job
from emp_trio.testing.faulty_server import Answer, event_stream, open_faulty_server, reply
from tests.protocols.support import open_http, open_websocket
from tests.services.a1111.support import open_a1111
from tests.services.ollama.support import job as ollama_job
from tests.services.ollama.support import open_ollama
from tests.services.openai.chat.support import open_text
from tests.services.rest.support import NOW, open_rest
from tests.services.support import job

WORDS = "plain words, " * (4 * LARGE // 13)
CHUNK: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": WORDS}, "finish_reason": "stop"}]}
WHOLE: dict[str, Any] = {"choices": [{"index": 0, "message": {"content": WORDS}, "finish_reason": "stop"}]}
TOOL = {
    "index": 0,
    "id": "a",
    "type": "function",
    "function": {"name": "f", "arguments": msgspec.json.encode({"x": WORDS}).decode()},
}
TOOLS: dict[str, Any] = {"choices": [{"index": 0, "delta": {"tool_calls": [TOOL]}, "finish_reason": "tool_calls"}]}
PLACES = {name: value for name, value in NOW.items() if not name.startswith("file")}
MANY = {"caption": "x", "meta": [{"a": n} for n in range(50_000)]}


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def frame(value: Any) -> bytes:
    return b"data: " + encoded(value) + b"\n\n"


@pytest.fixture(autouse=True)
def on_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Large work that was done by the thread of the loop; none may be."""
    loop, found = threading.get_ident(), list[str]()

    def watched(name: str, real: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            fake = sys._getframe(1).f_globals["__name__"].startswith("emp_trio.testing")
            if threading.get_ident() == loop and size(*args) > LARGE and not fake:
                found.append(f"{name} of {size(*args)}")
            return real(*args, **options)

        return call

    members = 0

    def counted(_: Any) -> int:
        nonlocal members
        members += threading.get_ident() == loop
        return members * 100

    for place, name, size in (
        (msgspec.json, "decode", len),
        (redactor, "_in_slices", lambda text, *_: len(text)),
        (redactor, "without_shapes", len),
        (importlib.import_module("emp_trio.secrets.held"), "without_shapes", len),
        (redactor, "distinct", counted),
    ):
        monkeypatch.setattr(place, name, watched(name, getattr(place, name), size))
    yield found
    assert found == []


@pytest.mark.parametrize("answer", [event_stream(frame(CHUNK)), reply(json=WHOLE), reply(json=[WHOLE, 1])])
async def test_an_event_of_a_stream(answer: Answer) -> None:
    async with (
        open_faulty_server(answer) as server,
        open_http(server.url) as probe,
        probe.streaming.events("POST", "/") as events,
    ):
        assert len((await anext(events)).data) > LARGE


@pytest.mark.parametrize("body", [encoded(WHOLE) + b"\n", msgspec.json.format(encoded(WHOLE)), encoded(WHOLE)])
async def test_a_line_of_a_stream(body: bytes) -> None:
    async with (
        open_faulty_server(reply(body=body)) as server,
        open_http(server.url) as probe,
        probe.streaming.lines("POST", "/") as lines,
    ):
        assert [line async for line in lines] == [WHOLE]


@pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])
@pytest.mark.parametrize(
    "answer",
    [event_stream(frame(CHUNK)), event_stream(frame(TOOLS)), reply(json=WHOLE)],
    ids=["event", "tools", "whole"],
)
async def test_a_chat(connector_context: ConnectorContext, cls: Any, answer: Answer) -> None:
    async with open_faulty_server(answer) as server, open_text(cls, server.url, connector_context) as connector:
        result = await run_job(connector, job({"prompt": "a tale", "model": "m"}))
    assert result.data["text"] == WORDS or result.data["tool_calls"]


@pytest.mark.parametrize("cls", [OpenAITextConnector, OpenAITextSimpleConnector])
async def test_an_error_of_a_chat(connector_context: ConnectorContext, cls: Any) -> None:
    answer = reply(json={"error": {"message": WORDS, "code": WORDS}})
    async with (
        open_faulty_server(answer) as server,
        open_text(cls, server.url, connector_context, max_retries=0) as connector,
    ):
        with pytest.raises(ServiceError, match="plain words") as caught:
            await run_job(connector, job({"prompt": "a tale", "model": "m"}))
    assert len(caught.value.message) < 5000


@pytest.mark.parametrize("line", [{"error": WORDS}, {"error": {"strange": [WORDS] * 3}}, {"strange": WORDS}])
async def test_an_error_of_ollama(connector_context: ConnectorContext, line: Any) -> None:
    async with (
        open_faulty_server(reply(body=encoded(line) + b"\n")) as server,
        open_ollama(server.url, connector_context) as connector,
    ):
        with pytest.raises(ServiceError, match="plain words") as caught:
            await run_job(connector, ollama_job("ollama", {"prompt": "a tale", "model": "m"}))
    assert len(caught.value.message) < 5000


@pytest.mark.parametrize("said", [{"caption": WORDS, "meta": {"more": WORDS}}, MANY], ids=["text", "many"])
async def test_any_service(connector_context: ConnectorContext, said: Any) -> None:
    async with (
        open_faulty_server(reply(json=said)) as server,
        open_rest("RestSyncConnector", server.url, connector_context, PLACES) as connector,
    ):
        result = await run_job(connector, job({"prompt": "a tale"}))
    assert result.data["text"] == said["caption"]


async def test_an_error_of_any_service(connector_context: ConnectorContext) -> None:
    answer = reply(json={"fault": {"text": [WORDS]}})
    async with (
        open_faulty_server(answer) as server,
        open_rest("RestSyncConnector", server.url, connector_context, PLACES) as connector,
    ):
        with pytest.raises(ServiceError, match="plain words") as caught:
            await run_job(connector, job({"prompt": "a tale"}))
    assert len(caught.value.message) < 5000


@pytest.mark.parametrize("size", [10, LARGE + 1])
async def test_a_message_of_a_socket(size: int) -> None:
    decoded, taken = list[int](), list[str]()

    def decode(message: str | bytes) -> str:
        decoded.append(threading.get_ident())
        return str(message)

    class Waiting:
        def take(self, event: str) -> None:
            taken.append(event)
            assert threading.get_ident() == loop
            shared.close()

        def lost(self, error: ServiceError) -> None:
            raise error

    async def talk(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message("x" * size)
        with suppress(ConnectionClosed):
            await socket.get_message()

    loop = threading.get_ident()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, talk, "127.0.0.1", 0, None)
        async with open_websocket(f"ws://127.0.0.1:{server.port}") as probe:
            shared = SharedSocket(
                lambda: probe.websocket.open(probe.settings.websocket.url),
                decode,
                lambda said: ("j", said),
                delay=1,
                cap=1,
            )
            with shared.receiving("j", Waiting()):
                await shared.keep_open()
        nursery.cancel_scope.cancel()
    assert taken == ["x" * size]
    assert (decoded == [loop]) is (size <= LARGE)


async def test_an_image_of_a1111_with_much_to_say(connector_context: ConnectorContext) -> None:
    async with open_fake_a1111() as fake, open_a1111(fake.base_url, connector_context) as connector:
        await run_job(connector, job({"prompt": WORDS}))


def test_of_a_large_value_no_more_is_looked_at_than_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    class Counted(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked_at
            for item in super().__iter__():
                looked_at += 1
                yield item

    shown = excerpt_of({"n": Counted(range(1_000_000)), "never": 1}, 200)
    assert (looked_at < 200, shown[:9]) == (True, '{"n":[0,1')
    assert (
        excerpt_of({"api_key": "hunter2", "b": "QUJD" * 1000}, 200)
        == '{"api_key":"***","b":"<base64 data, 3000 bytes>"}'
    )
    assert excerpt_of([2**70, float("nan"), "\ud800", {"x": [[[]]]}], 200) == f'["{2**70}",null,"?",{{"x":[[[]]]}}]'
    assert len(words_of({"message": WORDS})) <= 4000
