"""Event streams over real sockets: how they begin, how they end, and how they break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.decoders import SseEvent
from emp_trio.testing.faulty_server import Answer, Exchange, cut, dribble, event_stream, open_faulty_server, reply

from .support import HttpProbe, open_http

FRAMES = [b"event: a\ndata: 1\n\n", b": ping\n\n", b"data: 2\ndata: 3\n\n", b"event: done\ndata: {}\n\n"]
EVENTS = [("a", "1"), ("message", "2\n3"), ("done", "{}")]


def done(event: SseEvent) -> bool:
    return event.event == "done"


async def collect(probe: HttpProbe, until: Callable[[SseEvent], bool] | None = None, **options: Any) -> list[Any]:
    async with probe.streaming.events("POST", "/", until=until, **options) as events:
        return [(event.event, event.data) async for event in events]


async def collect_lines(probe: HttpProbe, until: Callable[[Any], bool] | None = None) -> list[Any]:
    async with probe.streaming.lines("POST", "/", until=until, json={"stream": True}) as lines:
        return [line async for line in lines]


WHOLE = event_stream(*FRAMES)


@pytest.mark.parametrize("answer", [WHOLE, dribble(WHOLE), event_stream(b"".join(FRAMES))])
async def test_events_come_one_by_one_and_end(answer: Answer) -> None:
    async with open_faulty_server(answer) as faulty, open_http(faulty.url) as probe:
        assert await collect(probe) == EVENTS
        assert await collect(probe, done) == EVENTS
        assert faulty.requests[0].headers["accept"] == "text/event-stream"


async def test_an_event_is_there_as_soon_as_it_was_sent() -> None:
    sent = trio.Event()
    seen = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\ndata: 1\n\n")
        sent.set()
        with trio.fail_after(60):
            await seen.wait()
        await exchange.send(b"data: 2\n\n")
        await exchange.until_left()

    async with open_faulty_server(answer) as faulty, open_http(faulty.url) as probe:
        async with probe.streaming.events("GET", "/") as events:
            assert (await anext(events)).data == "1"
            seen.set()
            assert (await anext(events)).data == "2"
        with trio.fail_after(60):
            await faulty.emptied()


async def test_the_last_event_ends_it_though_the_service_keeps_the_connection() -> None:
    async with (
        open_faulty_server(event_stream(*FRAMES, b"data: never\n\n", end=False)) as faulty,
        open_http(faulty.url) as probe,
    ):
        assert await collect(probe, done) == EVENTS
        with trio.fail_after(60):
            await faulty.emptied()


async def test_a_stream_cut_at_any_byte_is_an_error_where_its_last_event_is_known() -> None:
    whole = event_stream(*FRAMES[:2], FRAMES[3])
    head = len(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    size = head + sum(len(frame) + 6 for frame in [*FRAMES[:2], FRAMES[3]])
    cuts = [cut(whole, at) for at in range(size - 1)]
    async with open_faulty_server(*cuts, whole) as faulty, open_http(faulty.url, max_retries=0) as probe:
        short = 0
        for _ in cuts:
            outcome: list[Any] | ServiceError
            try:
                outcome = await collect(probe, done)
            except ServiceError as error:
                outcome = error
            if isinstance(outcome, ServiceError):
                short += 1
                assert (outcome.type, outcome.reason) == ("network_error", "connection_failed")
                assert outcome.maybe_started
                assert str(outcome).startswith("POST http")
            else:
                assert outcome == [EVENTS[0], EVENTS[2]]
        assert short >= len(cuts) - 2  # the last event may be whole although the frame around it is not
        assert await collect(probe, done) == [EVENTS[0], EVENTS[2]]


@pytest.mark.parametrize(
    ("frames", "words"),
    [(FRAMES[:3], "before its last event"), ([*FRAMES[:2], b"data: half\n"], "in the middle of an event")],
)
async def test_a_stream_that_ends_properly_but_early(frames: list[bytes], words: str) -> None:
    async with open_faulty_server(event_stream(*frames)) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match=f"POST http.*: the stream ended {words}") as caught:
            await collect(probe, done)
        assert caught.value.maybe_started
        assert len(faulty.requests) == 1


async def test_events_before_a_break_are_given_out_and_then_the_error() -> None:
    async with open_faulty_server(event_stream(*FRAMES[:3])) as faulty, open_http(faulty.url) as probe:
        got = []

        async def read() -> None:
            async with probe.streaming.events("GET", "/", until=done) as events:
                async for event in events:
                    got.append(event.data)  # noqa: PERF401  # each as it comes: the error must not lose them

        with pytest.raises(ServiceError) as caught:
            await read()
        assert got == ["1", "2\n3"]
        assert not caught.value.maybe_started  # a GET


async def test_what_is_no_event_stream_is_refused() -> None:
    page = reply(200, "<html>busy</html>", content_type="text/html")
    async with open_faulty_server(page) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match=r"POST http.*'text/html' instead of an event stream.*busy") as caught:
            await collect(probe)
        assert caught.value.reason == "unexpected_content_type"


@pytest.mark.parametrize("label", ["application/json", "text/plain", "text/event-stream"])
async def test_a_stream_is_one_by_its_bytes_and_not_by_its_label(label: str) -> None:
    whole = reply(200, json={"error": "x"}, content_type=label)
    async with (
        open_faulty_server(event_stream(*FRAMES, content_type=label), whole) as faulty,
        open_http(faulty.url) as probe,
    ):
        assert await collect(probe, done) == EVENTS
        assert [msgspec.json.decode(data) for _, data in await collect(probe)] == [{"error": "x"}]


async def test_an_error_status_is_an_error_and_a_503_is_repeated() -> None:
    async with (
        open_faulty_server(reply(503), event_stream(*FRAMES), reply(400)) as faulty,
        open_http(faulty.url) as probe,
    ):
        assert await collect(probe, done) == EVENTS
        with pytest.raises(ServiceError) as caught:
            await collect(probe, done)
        assert caught.value.status == 400


async def test_an_event_above_the_size_limit() -> None:
    big = event_stream(*[b"data: " + b"x" * 500] * 3)
    async with open_faulty_server(big) as faulty, open_http(faulty.url, max_response_bytes=1000) as probe:
        with pytest.raises(ServiceError, match=r"POST http.*larger than 1000 bytes"):
            await collect(probe)


async def test_silence_is_bounded_by_the_read_timeout_and_keepalives_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n")
        for _ in range(3):
            await trio.sleep(20)
            await exchange.send(b": ping\n\n")
        await exchange.send(b"data: 1\n\n")
        await exchange.until_left()

    async with open_faulty_server(answer) as faulty, open_http(faulty.url, read_timeout=30, timeout=600) as probe:
        began = trio.current_time()
        async with probe.streaming.events("GET", "/") as events:
            assert (await anext(events)).data == "1"
            with pytest.raises(ServiceError, match="no byte moved in time"):
                await anext(events)
        assert trio.current_time() - began == pytest.approx(90)


async def test_lines_of_json() -> None:
    ndjson = event_stream(b'{"a":1}\n{"a"', b':2}\n\n{"done":true}\n', content_type="application/x-ndjson")
    async with open_faulty_server(ndjson) as faulty, open_http(faulty.url) as probe:
        assert await collect_lines(probe) == [{"a": 1}, {"a": 2}, {"done": True}]
        assert await collect_lines(probe, lambda line: bool(line.get("done"))) == [{"a": 1}, {"a": 2}, {"done": True}]
        assert faulty.requests[0].headers["accept"] == "application/x-ndjson"
        with pytest.raises(ServiceError, match="before its last event"):
            await collect_lines(probe, lambda line: "never" in line)


async def test_lines_that_break_off_or_are_garbage() -> None:
    half = event_stream(b'{"a":1}\n{"a":', content_type="application/x-ndjson")
    html = reply(200, "<html>\n</html>\n", content_type="text/html")
    async with open_faulty_server(half, html) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match=r"POST http.*in the middle of a line") as caught:
            await collect_lines(probe)
        assert caught.value.reason == "connection_failed"
        with pytest.raises(ServiceError, match=r"POST http.*not JSON") as caught:
            await collect_lines(probe)
        assert caught.value.reason == "invalid_response_format"


async def test_a_cancel_inside_a_stream_closes_its_connection() -> None:
    async with open_faulty_server(event_stream(*FRAMES, end=False)) as faulty, open_http(faulty.url) as probe:
        for _ in range(5):
            with trio.CancelScope() as scope:
                async with probe.streaming.events("GET", "/") as events:
                    async for event in events:
                        if event.event == "done":
                            scope.cancel()
            assert scope.cancelled_caught
        with trio.fail_after(60):
            await faulty.emptied()
