"""The decoder of everything that a service says: what it reads, what it makes of it, what it refuses."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.protocols.decoders import NdjsonDecoder, SseDecoder
from emp_trio.protocols.http.response import HttpResponse
from emp_trio.protocols.wire_json import declared_charset, decode_json, join_halves

SMILE = "\U0001f600"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        (b'{"a": [1, 2.5, "x", true, null]}', {"a": [1, 2.5, "x", True, None]}),
        (b"NaN", None),
        (b'{"cfg": NaN, "a": [Infinity, -Infinity], "text": "NaN"}', {"cfg": None, "a": [None, None], "text": "NaN"}),
        (b"[1e999, -1e999, 1e308]", [None, None, 1e308]),
        (b"[" + b"7" * 5000 + b"]", [None]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "\u00e9"}'.encode("utf-16"), {"a": "\u00e9"}),
        ('{"a": "\u00e9"}'.encode("utf-16-be"), {"a": "\u00e9"}),
        ('{"a": "\u00e9"}'.encode("utf-32"), {"a": "\u00e9"}),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"two\nlines\tand \x00"', "two\nlines\tand \x00"),
        (b'{"a": 1, "a": NaN, "b": 1, "b": 2}', {"a": None, "b": 2}),
        (b'"\\ud83d\\ude00"', SMILE),
        (b'["\\ud83d\\ude00", "\\ud83d", "x\\ude00y"]', [SMILE, "\ufffd", "x\ufffdy"]),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', SMILE),
        (b'"\xed\xa0\xbd\\ude00"', SMILE),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd" + SMILE),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        ('"\ud83d"', "\ufffd"),
        (b'{"\\ud83d": 1}', {"\ufffd": 1}),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'["\\\\ud83d", NaN]', ["\\ud83d", None]),
    ],
)
def test_what_services_write_is_read(said: bytes | str, value: Any) -> None:
    assert decode_json(said) == value
    msgspec.json.encode(decode_json(said))


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        (b'{"a": tru}', '{"a": tru}'),
        (b'{"error": "model not', '{"error": "model not'),
        (b"Internal Server Error", "Internal Server Error"),
        (b"<html>busy</html>", "<html>busy</html>"),
        (b"{'a': 1}", "{'a': 1}"),
        (b'{"a": 1} {"b": 2}', '{"b": 2}'),
        (b"1 2", "1 2"),
        (b"", "nothing"),
        (b" \n", "nothing"),
        (b"\xef\xbb\xbf", "nothing"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[NaN," * 100_000, "nested too deeply"),
        (b'{"key": "sk-abcdefgh12345678", oops}', "sk-***"),
    ],
)
def test_what_is_broken_is_an_error_that_quotes_it(said: bytes, quoted: str) -> None:
    with pytest.raises(ServiceError) as caught:
        decode_json(said)
    assert (caught.value.type, caught.value.reason) == ("response_error", "invalid_response_format")
    assert quoted in caught.value.message
    assert "abcdefgh12345678" not in caught.value.message


def test_a_long_broken_answer_is_quoted_where_it_breaks() -> None:
    with pytest.raises(ServiceError) as caught:
        decode_json(b'{"a": "' + b"x" * 10_000 + b'", "here": tru, "b": "' + b"y" * 10_000 + b'"}')
    assert '"here": tru' in caught.value.message
    assert len(caught.value.message) < 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    )
)
def test_whatever_pythons_json_writes_is_read_as_what_it_becomes_when_written_again(value: Any) -> None:
    read = decode_json(json.dumps(value))
    assert read == decode_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert msgspec.json.decode(msgspec.json.encode(read)) == read


@given(st.text(alphabet=st.sampled_from("a\u00e9" + SMILE)), st.integers(1, 4))
def test_texts_cut_anywhere_in_utf_16_come_together_again(text: str, size: int) -> None:
    units = text.encode("utf-16-le")
    pieces = [units[i : i + 2 * size].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2 * size)]
    escaped = "".join(decode_json(json.dumps(piece), keep_halves=True) for piece in pieces)
    raw = "".join(decode_json(f'"{piece}"'.encode("utf-8", "surrogatepass"), keep_halves=True) for piece in pieces)
    assert join_halves(escaped) == join_halves(raw) == text


def test_what_was_joined_can_be_written() -> None:
    value = {"\ud83d": ["a\ude00", "\ud83d\ude00", 1, None, {"b": "\ud83d"}], "plain": "x"}
    assert join_halves(value) == {"\ufffd": ["a\ufffd", SMILE, 1, None, {"b": "\ufffd"}], "plain": "x"}


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("application/json", None),
        ("application/json; charset=latin-1", "latin-1"),
        ('application/json;Charset="ISO-8859-1"', "ISO-8859-1"),
        ("application/json; charset=nonsense", None),
        ("application/json; charset=base64", None),
    ],
)
def test_a_character_set_is_taken_where_it_is_one(content_type: str, charset: str | None) -> None:
    assert declared_charset({"content-type": content_type}) == charset


def test_answers_events_and_lines_are_read_alike() -> None:
    latin = {"content-type": "application/json; charset=latin-1"}
    assert HttpResponse(status=200, headers=latin, body=b'{"a": "caf\xe9"}').json() == {"a": "caf\u00e9"}
    assert HttpResponse(status=200, headers=latin, body='{"a": "caf\u00e9"}'.encode()).json() == {"a": "caf\u00e9"}
    assert HttpResponse(status=200, headers={}, body=b'{"a": NaN}').json() == {"a": None}
    (event,) = SseDecoder().feed(b'data: {"a": "\xed\xa0\xbd\xed\xb8\x80", "b": NaN}\n\n')
    assert event.json() == {"a": SMILE, "b": None}
    assert NdjsonDecoder().feed(b'{"a": "\\ud83d", "b": -Infinity}\n') == [{"a": "\ufffd", "b": None}]
    assert NdjsonDecoder().feed(b'\xef\xbb\xbf{"a": 1}\n') == [{"a": 1}]
