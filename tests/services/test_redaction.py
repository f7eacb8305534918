"""File bytes and secrets leave copies that are kept; everything else stays as it is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.services.redaction import _is_secret, redacted

BYTES = bytes(range(256)) * 4
TEXT = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TEXT, "<base64 data, 1024 bytes>"),
        ([TEXT], ["<base64 data, 1024 bytes>"]),
        ({"a": {"b": (TEXT, 1)}}, {"a": {"b": ["<base64 data, 1024 bytes>", 1]}}),
        (f"data:image/png;base64,{TEXT}", "<base64 image/png, 1024 bytes>"),
        (f"look: data:image/png;base64,{TEXT}", "look: <base64 image/png, 1024 bytes>"),
        ("data:image/png;base64,AAAA", "<base64 image/png, 3 bytes>"),
        ("\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)), "<base64 data, 1024 bytes>"),
        (base64.urlsafe_b64encode(BYTES).decode(), "<base64 data, 1024 bytes>"),
        (BYTES, "<1024 bytes>"),
        ("a cat", "a cat"),
        ("word " * 200, "word " * 200),
        ("https://cdn.example.com/" + "folder/" * 60 + "a.png", "https://cdn.example.com/" + "folder/" * 60 + "a.png"),
        (None, None),
        (1.5, 1.5),
        ({"headers": {"Authorization": "Bearer abc"}}, {"headers": {"Authorization": "***"}}),
        (
            {"x_api_key": "abc", "accountKey": "abc", "api_key": ""},
            {"x_api_key": "***", "accountKey": "***", "api_key": ""},
        ),
        ("use sk-proj-12345678 please", "use sk-*** please"),
        ({"url": "https://u:pass@host/a?sig=abc"}, {"url": "https://u:***@host/a?sig=***"}),
    ],
)
def test_table(value: Any, expected: Any) -> None:
    assert redacted(value) == expected


@pytest.mark.parametrize("levels", [101, 600, 5000])
def test_what_is_nested_too_deeply_to_be_shown_is_left_out(levels: int) -> None:
    value: Any = "sk-proj-12345678"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    shown = str(redacted(value))
    assert "<nested too deeply>" in shown
    assert "12345678" not in shown


@given(st.binary(min_size=192, max_size=4000))
def test_no_file_survives(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert text not in str(redacted({"a": [text, f"data:a/b;base64,{text}"]}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=200),
        lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: not _is_secret(name)), inner),
    )
)
def test_what_has_no_files_is_not_changed(value: Any) -> None:
    if "base64," not in str(value):
        assert redacted(value) == value
