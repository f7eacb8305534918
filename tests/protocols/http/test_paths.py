"""Foreign text in the paths of URLs: one segment stays one, and nothing climbs out, however often it is decoded."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import NoAuth
from emp_trio.protocols.http.paths import climbs, plain_path, segment
from emp_trio.protocols.http.request import make_call
from tests.protocols.support import open_http

CLIMBING = r"""
    /.. /. /../ /./a /a/.. /a/../b /a/. ../a /..;/a /..;x=1/a /a/..; /.;/a /%2e%2e/a /%2E%2e/a /.%2e/a /%2e/a
    /%252e%252e/a /%25252e%25252e/a /%2525252525252e%2e/a /..%2fa /a%2f..%2fb /..%5ca /a%5c..%5cb /..%255ca /..%252fa
    /%5c..%5ca /..%00/a /..%3b/a /..%3B/a /%2e%2e%3b/a /..%20/a /..%09/a /.../a /%ef%bc%8e%ef%bc%8e/a
    /%EF%BC%8E./a /a/..?b=c /a/%2e%2e?b
    /%u002e%u002e/a /%U002E./a /%25u002e%25u002e/a /%uff0e%uff0e/a
""".split()
HARMLESS = """
    / /a /a/b /a.b/c /a..b /.well-known/x /a/.b /v1.5/models/gpt-4.1 /m:generateContent /a%20b /a%2fb /a?b=../c /a/b..
    /..a /a/%25 /100%25 /%41
""".split()


@pytest.mark.parametrize("path", CLIMBING)
def test_what_climbs_out(path: str) -> None:
    assert climbs(path)
    with pytest.raises(ValueError, match=r"."):
        make_call("GET", path, base_url="https://h/v1", auth=NoAuth(), accept="*/*", options={})
    with pytest.raises(ValueError, match=r"."):
        plain_path(path)


@pytest.mark.parametrize("path", HARMLESS)
def test_what_stays(path: str) -> None:
    assert not climbs(path)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("/a/b?c=d&e=../f", "/a/b?c=d&e=../f"),
        ("/a/", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a%20b", "/a%20b"),
        ("/100%25", "/100%25"),
        ("/J%C3%B6rg", "/J%C3%B6rg"),
        ("/m:x@1,2=3", "/m:x@1,2=3"),
        ("/.well-known/x", "/.well-known/x"),
        ("?a=b", None),
        ("", None),
        ("a", None),
        ("//h/a", None),
        ("/a//b", None),
        ("/a;b", None),
        ("/a;b=c/d", None),
        ("/a%3bb", None),
        ("/a%2fb", None),
        ("/a%5cb", None),
        ("/a%00", None),
        ("/a%0d%0ab", None),
        ("/a%0a", None),
        ("/%c0%ae%c0%ae/a", None),
        ("/%e0%80%ae/a", None),
        ("/%ff", None),
        ("/a%252fb", None),
        ("/a%2525", None),
        ("/a%E2%88%95b", None),
        ("/a%E2%81%84b", None),
        ("/a%EF%BC%8Fb", None),
        ("/a%20", None),
        ("/a\\b", None),
        ("/a b", None),
        ("/a#b", None),
        ("/ä", None),
        ("/a\r\nx: y", None),
        ("/a\x00", None),
        ("/a<b", None),
    ],
)
def test_the_plain_form_of_a_path(path: str, plain: str | None) -> None:
    if plain is None:
        with pytest.raises(ValueError, match=r"."):
            plain_path(path)
    else:
        assert plain_path(path) == plain


ODD = st.text(st.sampled_from("/.%2eE5cCfF\\;@:?#a 0\r\n\x00．／"), max_size=14)


@given(ODD)
def test_a_plain_path_is_read_in_the_same_way_by_everybody(path: str) -> None:
    try:
        found = plain_path(path)
    except ValueError:
        return
    assert plain_path(found) == found
    before = found.partition("?")[0]
    for _ in range(3):  # a proxy, a gateway, a framework
        parts = before[1:].split("/")
        assert not {"", ".", ".."} & set(parts[:-1])
        assert parts[-1] not in (".", "..")
        assert before.count("/") == found.partition("?")[0].count("/")
        before = unquote(before)


@given(st.text(max_size=20) | ODD)
def test_any_text_is_one_segment(text: str) -> None:
    made = segment(text)
    assert not set(made) & set("/\\?#;% ") - {"%"}
    assert unquote(made, errors="surrogatepass") == text


@given(ODD)
def test_a_segment_that_climbs_is_never_sent(text: str) -> None:
    """What a server may make of it by decoding: no dot segment is among it, unless the call is refused."""
    path = f"/task/{segment(text)}/state"
    if climbs(path):
        return
    for _ in range(4):
        assert not {".", ".."} & set(path.replace("\\", "/").replace(";", "/").split("/"))
        path = unquote(path)


@pytest.mark.parametrize("text", [".", "..", "../../admin", "..\\..\\admin", "..;", quote("../x", safe="")])
async def test_a_call_with_such_an_id_is_a_typed_error(text: str) -> None:
    async with open_http("http://127.0.0.1:9") as probe:
        with pytest.raises(ServiceError, match="can't be read") as caught:
            await probe.http.request("GET", f"/task/{segment(text)}")
    assert not caught.value.retry
    assert not caught.value.maybe_started
