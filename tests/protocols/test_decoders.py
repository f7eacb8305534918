"""The decoders of event streams: the standard's rules, and the same events however the bytes are split."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.protocols.answer_decoder import AnswerDecoder
from emp_trio.protocols.decoders import NdjsonDecoder, SseDecoder, SseEvent


def decode(data: bytes, cuts: list[int] | None = None, make: Callable[[], Any] = SseDecoder) -> list[Any]:
    """All events of ``data`` fed in pieces that end at ``cuts``."""
    decoder = make()
    events: list[Any] = []
    edges = [0, *sorted(cut for cut in cuts or [] if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(edges):
        events += decoder.feed(data[start:end])
    events += decoder.finish()
    return events


def e(data: str, event: str = "message", id: str = "") -> SseEvent:
    return SseEvent(event=event, data=data, id=id)


CASES = [
    (b"", []),
    (b"\n\n\n", []),
    (b"data: a\n\n", [e("a")]),
    (b"data:a\n\n", [e("a")]),
    (b"data:  a \n\n", [e(" a ")]),
    (b"data\n\n", []),  # the standard's empty event; of services it is a sign of life
    (b"data:\ndata\n\n", []),
    (b"event: ping\ndata:  \n\ndata: a\n\n", [e("a")]),
    (b"data:\ndata: a\ndata:\n\n", [e("\na\n")]),
    (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n\n', [e('{"a":1}'), e('{"b":2}'), e("[DONE]")]),
    (b'data: {"a":\ndata: 1}\n\n', [e('{"a":\n1}')]),
    (b'data: {"a":1}\n\ndata: {"b":2}', [e('{"a":1}'), e('{"b":2}')]),
    (b'event: x\ndata: {"a":1}\n', [e('{"a":1}', "x")]),
    (b"data: {}\n\ndata: [DONE]", [e("{}"), e("[DONE]")]),
    (b"data: {}\n\nretry: 10", [e("{}")]),
    (b"data: a\r\n\r\n", [e("a")]),
    (b"data: a\r\r", [e("a")]),
    (b"data: a\r\n\ndata: b\n\r\n", [e("a"), e("b")]),
    (b"data: a\rdata: b\ndata: c\r\n\n", [e("a\nb\nc")]),
    (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [e("a")]),
    (b": comment\n\ndata: a\n: comment\ndata: b\n\n:\n\n", [e("a\nb")]),
    (b"event: done\ndata: {}\n\n", [e("{}", "done")]),
    (b"event: done\n\ndata: x\n\n", [e("x")]),
    (b"event: a\nevent: b\ndata: x\n\n", [e("x", "b")]),
    (b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", [e("a", id="1"), e("b", id="1"), e("c")]),
    (b"id: 1\x00\ndata: a\n\n", [e("a")]),
    (b"id: 7\n\ndata: a\n\n", [e("a", id="7")]),
    (b"retry: 100\nfoo: bar\ndatax: no\n data: no\ndata: a\n\n", [e("a")]),
    (b"data: a:b: c\n\n", [e("a:b: c")]),
    ("data: \u00e9\u4e16\U0001f600\n\n".encode(), [e("\u00e9\u4e16\U0001f600")]),
    (b"data: \xff\xfe\n\n", [e("\ufffd\ufffd")]),
    (b"data: a\x0bb\x0cc\x85\n\n", [e("a\x0bb\x0cc\ufffd")]),
    (b"data: [DONE]\n\n: bye", [e("[DONE]")]),
]


@pytest.mark.parametrize(("data", "events"), CASES)
def test_the_rules_of_the_standard_at_every_split(data: bytes, events: list[SseEvent]) -> None:
    assert decode(data) == events
    assert decode(data, list(range(len(data)))) == events
    for cut in range(len(data)):
        assert decode(data, [cut]) == events


@pytest.mark.parametrize(
    "data",
    [
        b"data: a",
        b"data: a\n",
        b"event: x\n",
        b"event",
        b"data: a\n\ndata: b\r\n",
        b'data: {"a":',
        b"dat",
        b"data: [DON",
    ],
)
def test_an_end_inside_an_event_is_an_error(data: bytes) -> None:
    with pytest.raises(ServiceError, match="ended in the middle of an event") as caught:
        decode(data)
    assert (caught.value.reason, caught.value.retry) == ("connection_failed", True)


def test_an_empty_piece_between_cr_and_lf_changes_nothing() -> None:
    assert decode(b"data: a\r\ndata: b\r\n\r\n", [8, 8, 8]) == [e("a\nb")]


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"", b":", b"data", b"data: ", b"event: x", b"id: 1", b"id", b"\xef\xbb\xbfdata: y", b"\xc3"]),
        st.binary(max_size=12).filter(lambda b: b"\r" not in b and b"\n" not in b),
        st.text(max_size=8).map(lambda t: b"data: " + t.replace("\r", "").replace("\n", "").encode("utf-8", "replace")),
    ),
    max_size=30,
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


def whole_events(lines: list[bytes]) -> list[SseEvent]:
    """What the lines mean, read in the simplest way."""
    events: list[SseEvent] = []
    data: list[str] = []
    event = last_id = ""
    for number, raw in enumerate(lines):
        line = raw[3:] if number == 0 and raw.startswith(b"\xef\xbb\xbf") else raw
        if not line:
            if "".join(data).strip():
                events.append(e("\n".join(data), event or "message", last_id))
            data, event = [], ""
            continue
        name, colon, value = line.partition(b":")
        text = (value[1:] if colon and value.startswith(b" ") else value).decode("utf-8", "replace")
        if name == b"data":
            data.append(text)
        elif name == b"event":
            event = text
        elif name == b"id" and "\0" not in text:
            last_id = text
    return events


@given(LINES, st.data())
def test_any_lines_any_line_ends_any_split(lines: list[bytes], draw: st.DataObject) -> None:
    lines = [*lines, b"", b""]
    data, previous = b"", b""
    for line in lines:
        # a lone CR before an empty line that ends with LF would be one CRLF
        ends = [b"\n", b"\r", b"\r\n"] if not (previous == b"\r" and not line) else [b"\r", b"\r\n"]
        previous = draw.draw(st.sampled_from(ends))
        data += line + previous
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    assert decode(data, cuts) == whole_events(lines)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_give_events_or_our_own_error_the_same_way_at_any_split(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int], make: Callable[[], Any]) -> object:
        try:
            return decode(data, cuts, make)
        except ServiceError as error:
            return error.reason

    for make in (
        SseDecoder,
        NdjsonDecoder,
        lambda: AnswerDecoder("text/plain"),
        lambda: AnswerDecoder("text/event-stream"),
    ):
        assert outcome(cuts, make) == outcome([], make)


def test_an_event_that_is_too_large_is_refused_while_it_comes() -> None:
    for piece in (b"data: " + b"x" * 100, b": " + b"x" * 100, b"data: " + b"x" * 49 + b"\n"):
        decoder = SseDecoder(max_event_bytes=100)
        with pytest.raises(ServiceError, match="larger than 100 bytes") as caught:
            [decoder.feed(part) for part in [piece] * 3]
        assert not caught.value.retry
    assert len(decode(b"data: " + b"x" * 99 + b"\n\n" + b"data: y\n\n" * 100, make=lambda: SseDecoder(100))) == 101


def test_comments_for_hours_are_no_large_event() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    for _ in range(1000):
        assert decoder.feed(b": keep-alive\n") == []
    assert decoder.feed(b"data: a\n\n") == [e("a")]


@pytest.mark.parametrize("make", [SseDecoder, NdjsonDecoder])
def test_a_large_event_in_small_pieces_takes_linear_time(make: Callable[[], Any]) -> None:
    """8 times the bytes must not take anything like 64 times as long. A busy machine may need several looks."""

    def seconds(size: int) -> float:
        piece = b"x" * 1000
        began = time.thread_time()
        decoder = make()
        decoder.feed(b'data: "' if make is SseDecoder else b'"')
        for _ in range(size // 1000):
            decoder.feed(piece)
        assert len(decoder.feed(b'"\n\n')) == 1
        return time.thread_time() - began

    # Both sizes are too large for the caches of a processor.
    assert any(seconds(32_000_000) < 32 * max(seconds(4_000_000), 0.001) for _ in range(5))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=8), st.data())
def test_any_lines_of_json_at_any_split(values: list[Any], draw: st.DataObject) -> None:
    end = draw.draw(st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"]))
    data = b"".join(msgspec.json.encode(value) + end for value in values)
    if draw.draw(st.booleans()):
        data = data.rstrip(b"\r\n ")
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    assert decode(data, cuts, NdjsonDecoder) == values


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/json", "text/html", "text/event-stream"])
@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', ['{"a":1}', "[DONE]"]),
        (b'\xef\xbb\xbfdata:{"a":1}\r\n\r\n', ['{"a":1}']),
        (b": hello\n\nevent: x\ndata: 1\n\n", ["1"]),
        (b'\n\nid: 1\ndata: {"a":1}', ['{"a":1}']),
        (b'{"whole": true}', ['{"whole": true}']),
        (b'\xef\xbb\xbf {\n "whole": NaN\n}\n', ['{\n "whole": NaN\n}']),
        (b'{"a":1}\n\n{"b":2}\r\n', ['{"a":1}', '{"b":2}']),
        (b'[{"a":1},\n{"b":NaN}]', ['{"a":1}', '{"b":null}']),
        (b"", []),
        (b" \r\n", []),
    ],
)
def test_a_streamed_answer_is_what_its_bytes_are(media_type: str, data: bytes, events: list[str]) -> None:
    def make() -> AnswerDecoder:
        return AnswerDecoder(media_type)

    for cuts in ([], list(range(len(data))), *([cut] for cut in range(len(data)))):
        assert [event.data.strip() for event in decode(data, cuts, make)] == events


@pytest.mark.parametrize(
    ("data", "quoted"), [(b"<html>busy</html>", "<html>busy"), (b"Service unavailable", "Service"), (b"busy", "busy")]
)
def test_a_page_in_place_of_a_stream_is_quoted(data: bytes, quoted: str) -> None:
    with pytest.raises(ServiceError, match=quoted) as caught:
        decode(data, make=lambda: AnswerDecoder("text/html"))
    assert caught.value.reason == "unexpected_content_type"


def test_blanks_for_hours_are_no_large_event() -> None:
    decoder = AnswerDecoder("text/event-stream", max_event_bytes=100)
    for _ in range(1000):
        assert decoder.feed(b"\r\n") == []
    assert decoder.feed(b"data: a\n\n") == [e("a")]


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] ", '"[DONE]"', "[done]"])
def test_the_end_of_a_stream_is_known_however_it_is_written(data: str) -> None:
    assert e(data).done
    assert not e("DONE").done


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n', [{"a": 1}, {"b": 2}]),
        (b': hi\nevent: x\ndata: {"a":1}\nid: 7', [{"a": 1}]),
        (b'{\n  "a": 1,\n  "b": [\n]\n}\n', [{"a": 1, "b": []}]),
        (b'\xef\xbb\xbf{"a": NaN}\n', [{"a": None}]),
    ],
)
def test_lines_that_are_of_another_kind_are_read_all_the_same(data: bytes, values: list[Any]) -> None:
    for cuts in ([], list(range(len(data)))):
        assert decode(data, cuts, NdjsonDecoder) == values


def test_lines_that_are_not_json() -> None:
    with pytest.raises(ServiceError, match="not JSON") as caught:
        decode(b'{"a":1}\nnot json\n', make=NdjsonDecoder)
    assert caught.value.reason == "invalid_response_format"
    with pytest.raises(ServiceError, match="ended in the middle of a line") as caught:
        decode(b'{"a":1}\n{"b":', make=NdjsonDecoder)
    assert caught.value.reason == "connection_failed"
    for data in (b"[" * 100_001 + b"\n", b'"' + b"x" * 100_000):
        with pytest.raises(ServiceError):
            decode(data, make=lambda: NdjsonDecoder(100_000))


def test_the_data_of_an_event_as_json() -> None:
    assert e('{"a": 1}').json() == {"a": 1}
    with pytest.raises(ServiceError, match="not JSON"):
        e("[DONE]").json()
