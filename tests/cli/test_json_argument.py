"""JSON on the command line: what is read, and what a mistake is told like."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.cli.json_argument import json_argument, json_object
from emp_trio.errors import ConfigError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner), max_leaves=10
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"a": 1', '--x: line 1, column 8: the text ends too early\n  {"a": 1\n         ^'),
        (b'{\n\t"a" 1}', "--x: line 2, column 6: expected ':'\n   \"a\" 1}\n       ^"),
        ('{"é": "ü" "b"}'.encode(), '--x: line 1, column 11: expected \',\' or \'}\'\n  {"é": "ü" "b"}\n            ^'),
        (b'{"a": NaN}', "--x: line 1, column 7: invalid character"),
        (b"{'a': 1}", "--x: line 1, column 2: object keys must be strings"),
        (b"{a: 1}", "there is no double quote in it: put the JSON in single quotes"),
        (b"", "--x: there is no text"),
        (b"[1]", "--x: a JSON object is expected, this is an array"),
        (b"1.5", "--x: a JSON object is expected, this is a number"),
        (b"true", "--x: a JSON object is expected, this is true or false"),
        (b'{"a": "\xff"}', "--x: the text is not UTF-8"),
        (b'{"a": \xff}', "--x: line 1, column 7: invalid character"),
        (b'{"a":' * 20_000, "--x: the JSON is nested too deeply"),
        (b'{"a": 1e999}', "--x: Number out of range"),
    ],
)
def test_a_mistake_is_shown_where_it_is(data: bytes, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        json_object("--x", data)
    assert text in str(caught.value)


def test_of_a_long_line_the_part_around_the_spot_is_shown_without_credentials() -> None:
    data = b'{"accountKey": "' + b"Ab1+" * 22 + b'", "other": 1 2, "more": "' + b"word " * 50 + b'"}'
    with pytest.raises(ConfigError) as caught:
        json_object("--ctx", data)
    head, line, mark = str(caught.value).split("\n")
    assert head == f"--ctx: line 1, column {data.index(b'2,') + 1}: expected ',' or '}}'"
    assert len(line) <= 62
    assert line[len(mark) - 1] == "2"
    assert '*", "other": 1 2, "more"' in line
    assert "Ab1" not in str(caught.value)


@given(st.dictionaries(st.text(), JSON))
def test_every_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert json_argument("--x", json.dumps(value)) == value


@given(st.binary() | st.text('{}[]":, \n\\ue1-.aé', max_size=30).map(str.encode))
def test_anything_else_is_our_error(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(json_object("--x", data), dict)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1]}')
    assert json_argument("--x", f"@{file}") == {"a": [1]}
    file.write_text('{"a": [1}')
    for argument, text in {
        f"@{file}": f"--x ({file}): line 1, column 9",
        f"@{tmp_path}": f"--x: the file '{tmp_path}' can't be read: Is a directory",
        "@": "--x: the file '' can't be read",
        "@a\0b": "can't be read",
    }.items():
        with pytest.raises(ConfigError) as caught:
            json_argument("--x", argument)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"password": "hunter2" x}',
        b'{"api_key": hunter2}',
        b"{'api_key': 'hunter2'}",
        b'{"api_key": "hunter2}',
        b'{"api_key: "hunter2"}',
        b'{"a": "x", password": "hunter2", "b": 1}',
        b'{"token": 4711 "x"}',
        b'{"prompt": "hunter2" "b"}',
        b'{"password":"a\\"hunter2" 1}',
        b'{"x": [1, "hunter2", 2 3]}',
    ],
)
def test_of_broken_json_no_value_is_shown_however_short_it_is(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        json_object("--payload", data)
    assert "hunter2" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert "--payload: line 1, column" in str(caught.value)


def test_names_numbers_and_punctuation_are_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        json_object("--payload", b'{"steps": 30, "tiling": true 7.5}')
    assert '{"steps": 30, "tiling": true 7.5}' in str(caught.value)
