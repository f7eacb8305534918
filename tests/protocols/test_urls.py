"""URLs: joined without adding or losing a segment, shown without secrets, credentials kept at home."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.protocols.urls import join_url, keeps_credentials, origin, redirected, shown_url


@pytest.mark.parametrize(
    ("base", "path", "params", "url"),
    [
        ("https://h/v1", "/responses", None, "https://h/v1/responses"),
        ("https://h/v1", "responses", None, "https://h/v1/responses"),
        ("https://h/v1/", "/responses", None, "https://h/v1/responses"),
        ("https://h/v1/", "responses/", None, "https://h/v1/responses/"),
        ("https://h", "/x", None, "https://h/x"),
        ("https://h:8188/", "", None, "https://h:8188/"),
        ("https://h/v1", "", None, "https://h/v1"),
        ("https://h/a//", "/b//c", None, "https://h/a//b//c"),
        ("https://h/v1/chat", "/v1/chat", None, "https://h/v1/chat/v1/chat"),
        ("https://h/m:generateContent", "", {"alt": "sse"}, "https://h/m:generateContent?alt=sse"),
        ("https://h/v1?api-version=2", "/x?y=1", {"z": "a b"}, "https://h/v1/x?api-version=2&y=1&z=a+b"),
        ("https://h", "/x", {"n": None, "b": False, "l": [1, "2"], "e": ""}, "https://h/x?b=false&l=1&l=2&e="),
        ("https://h", "@evil.com/x", None, "https://h/@evil.com/x"),
        ("https://h/v1", "//evil.com/x", None, "https://h/v1//evil.com/x"),
        ("https://h/v1", "HTTPS://other/x?a=1#f", {"b": 2}, "https://other/x?a=1&b=2"),
        ("http://u:p@h/v1", "/x", None, "http://u:p@h/v1/x"),
    ],
)
def test_join(base: str, path: str, params: dict[str, Any] | None, url: str) -> None:
    assert join_url(base, path, params) == url


SEGMENT = st.text("abcXYZ09-._~", min_size=1, max_size=6)


@given(st.lists(SEGMENT, max_size=4), st.lists(SEGMENT, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_joining_keeps_every_segment(base: list[str], path: list[str], slash: bool, leading: bool) -> None:
    root = "https://host" + "".join(f"/{segment}" for segment in base) + ("/" if slash else "")
    joined = join_url(root, ("/" if leading else "") + "/".join(path))
    assert joined == "https://host/" + "/".join([*base, *path])


@pytest.mark.parametrize(
    ("base", "url", "kept"),
    [
        ("https://h/v1", "https://h/v2/x", True),
        ("https://h", "https://h:443/x", True),
        ("https://h", "https://H/x", True),
        ("http://h", "https://h/x", True),
        ("http://h:80", "https://h:443/x", True),
        ("https://h", "http://h/x", False),
        ("http://h:8188", "https://h:8189/x", False),
        ("https://h", "https://h:444/x", False),
        ("https://h", "https://h.evil.com/x", False),
        ("https://h", "https://evil.com/h", False),
        ("https://h", "https://h@evil.com/", False),
    ],
)
def test_where_credentials_may_go(base: str, url: str, kept: bool) -> None:
    assert keeps_credentials(base, url) == kept


@pytest.mark.parametrize(
    ("method", "url", "status", "location", "following"),
    [
        ("GET", "http://h/a/b", 302, "c?d=1", ("GET", "http://h/a/c?d=1")),
        ("GET", "http://h/a", 301, "//other/x", ("GET", "http://other/x")),
        ("HEAD", "http://h/a", 303, "/x", ("HEAD", "http://h/x")),
        ("GET", "http://h/a", 308, "https://h/a", ("GET", "https://h/a")),
        ("POST", "http://h/a", 307, "/x", ("POST", "http://h/x")),
        ("POST", "http://h/a", 303, "/x", ("GET", "http://h/x")),
        ("POST", "http://h/a", 302, "/x", None),
        ("DELETE", "http://h/a", 301, "/x", None),
        ("GET", "https://h/a", 302, "http://h/a", None),
        ("GET", "http://h/a", 302, "ws://h/a", None),
    ],
)
def test_redirects(method: str, url: str, status: int, location: str, following: tuple[str, str] | None) -> None:
    assert redirected(method, url, status=status, location=location) == following


@pytest.mark.parametrize("location", ["mailto:x", "http://[x", "http://h:port/"])
def test_a_redirect_to_what_is_no_place(location: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        redirected("GET", "http://h/a", status=302, location=location)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@h:8443/p?sig=secret#secret", "https://h:8443/p"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://[secret", "an unreadable URL"),
        ("http://h:secret/", "an unreadable URL"),
        ("", ""),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@given(st.text(max_size=40))
def test_anything_can_be_shown_and_has_an_origin_or_a_value_error(text: str) -> None:
    assert isinstance(shown_url(text), str)
    with suppress(ValueError):
        assert origin(text)[0] in ("http", "https", "ws", "wss")
