"""What goes out and what comes back when nothing goes wrong, and where credentials go."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_trio.errors import ConfigError, ServiceError
from emp_trio.protocols.auth import ApiKeyHeader, Auth, Basic, Bearer, NoAuth
from emp_trio.secrets import Secret
from emp_trio.testing.faulty_server import event_stream, open_faulty_server, redirect, reply

from ..support import open_http, self_signed

OK = reply(200, json={"ok": True}, headers={"x-request-id": "req_1"})


async def test_a_json_call_and_its_answer() -> None:
    async with open_faulty_server(OK) as faulty, open_http(f"{faulty.url}/v1") as probe:
        answer = await probe.http.request(
            "post", "/responses", json={"a": [1, None]}, params={"n": 2, "no": None, "b": True}
        )
        assert (answer.status, answer.json(), answer.tries, answer.request_id) == (200, {"ok": True}, 1, "req_1")
        assert answer.headers["content-type"] == "application/json"
        (request,) = faulty.requests
        assert (request.method, request.target) == ("POST", "/v1/responses?n=2&b=true")
        assert request.body == b'{"a":[1,null]}'
        sent = request.headers
        assert sent["content-type"] == sent["accept"] == "application/json"
        assert sent["user-agent"] == "emp-trio-test/1"
        assert "authorization" not in sent
        assert "cookie" not in sent


async def test_bytes_go_out_as_they_are_and_any_answer_is_taken() -> None:
    async with (
        open_faulty_server(reply(200, b"\x00\xff", content_type="image/png")) as faulty,
        open_http(faulty.url) as probe,
    ):
        answer = await probe.http.request(
            "PUT", "upload", content=b"--x--", headers={"Content-Type": "multipart/form-data", "X-A": "1"}, expect="any"
        )
        assert answer.body == b"\x00\xff"
        (request,) = faulty.requests
        assert request.target == "/upload"
        assert request.body == b"--x--"
        assert request.headers["content-type"] == "multipart/form-data"
        assert request.headers["x-a"] == "1"
        assert request.headers["accept"] == "*/*"


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (NoAuth(), "authorization", None),
        (Bearer(Secret("")), "authorization", None),
        (Bearer(Secret("tok")), "authorization", "Bearer tok"),
        (Basic("me", Secret("pw")), "authorization", "Basic bWU6cHc="),
        (ApiKeyHeader("X-Goog-Api-Key", Secret("key")), "x-goog-api-key", "key"),
    ],
)
async def test_auth_kinds(auth: Auth, header: str, value: str | None) -> None:
    async with open_faulty_server(OK) as faulty, open_http(faulty.url, auth=auth) as probe:
        await probe.http.request("GET", "/")
        assert faulty.requests[0].headers.get(header) == value


@pytest.mark.parametrize("key", ["sk-secret-secret\n", "sk-secret-secret ", "sk-sécret-secret", "sk-\x00secret-secret"])
async def test_a_key_that_cannot_be_a_header_is_a_config_error_without_the_key(key: str) -> None:
    async with (
        open_faulty_server(OK) as faulty,
        open_http(faulty.url, auth=ApiKeyHeader("x-key", Secret(key))) as probe,
    ):
        with pytest.raises(ConfigError, match="'x-key' has a character that can't be sent") as caught:
            await probe.http.request("GET", "/")
        assert "secret" not in str(caught.value)
        assert not faulty.requests


async def test_an_illegal_header_is_named_but_not_quoted() -> None:
    async with open_faulty_server(OK) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match="illegal character") as caught:
            await probe.http.request("GET", "/", headers={"x-token": "hidden\nvalue"})
        assert (caught.value.type, caught.value.retry) == ("system_error", False)
        assert "hidden" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("base_url", ["", "localhost:8188", "ftp://x", "http://", "http://h:port", "ws://h"])
async def test_a_base_url_that_is_none_is_refused_at_the_start(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url must be an absolute http or https URL"):
        async with open_http(base_url):
            pass


@pytest.mark.parametrize("path", ["http://h:port/x?k=hidden", "http://[h/x?k=hidden", "http:///x?k=hidden"])
async def test_a_url_that_cannot_be_read_is_an_error_of_the_call(path: str) -> None:
    async with open_http("http://127.0.0.1:1") as probe:
        with pytest.raises(ServiceError, match="the URL of a call can't be read") as caught:
            await probe.http.request("GET", path)
        assert (caught.value.type, caught.value.retry) == ("validation_error", False)
        assert "hidden" not in str(caught.value)


async def test_one_connection_serves_call_after_call_and_keeps_no_cookies() -> None:
    async with open_faulty_server(reply(200, json=1, headers={"set-cookie": "job=1; Path=/"})) as faulty:
        async with open_http(faulty.url) as probe:
            for _ in range(5):
                await probe.http.request("GET", "/")
            assert faulty.connections == 1
            assert all("cookie" not in request.headers for request in faulty.requests)
        await faulty.emptied()


async def test_a_compressed_answer_is_unpacked() -> None:
    import gzip

    body = gzip.compress(b'{"ok": 1}')
    packed = reply(200, body, content_type="application/json", headers={"content-encoding": "gzip"})
    async with open_faulty_server(packed) as faulty, open_http(faulty.url) as probe:
        assert (await probe.http.request("GET", "/")).json() == {"ok": 1}


async def test_a_chunked_answer_and_one_that_ends_with_the_connection() -> None:
    async def to_the_end(exchange: object) -> None:
        from emp_trio.testing.faulty_server import Exchange
        from emp_trio.testing.http11 import Cut

        assert isinstance(exchange, Exchange)
        await exchange.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n[1]")
        raise Cut

    chunked = event_stream(b'{"a"', b":1}", content_type="application/json")
    async with open_faulty_server(chunked, to_the_end) as faulty, open_http(faulty.url) as probe:
        assert (await probe.http.request("GET", "/")).json() == {"a": 1}
        assert (await probe.http.request("GET", "/")).json() == [1]


async def test_an_answer_is_streamed_and_its_connection_comes_back() -> None:
    async with open_faulty_server(reply(200, b"x" * 300_000)) as faulty, open_http(faulty.url) as probe:
        for _ in range(2):
            async with probe.http.stream("GET", "/big") as stream:
                assert (stream.status, stream.tries) == (200, 1)
                assert sum([len(chunk) async for chunk in stream.chunks()]) == 300_000
        assert faulty.connections == 1


async def test_a_stream_may_be_left_at_any_point() -> None:
    async with (
        open_faulty_server(reply(200, b"x" * 3_000_000)) as faulty,
        open_http(faulty.url, max_connections=1) as probe,
    ):
        async with probe.http.stream("GET", "/"):
            pass
        async with probe.http.stream("GET", "/") as stream:
            async for _ in stream.chunks():
                break
        assert len((await probe.http.request("GET", "/", expect="any")).body) == 3_000_000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_a_get_is_followed(status: int) -> None:
    async with open_faulty_server(redirect("/elsewhere?x=1", status), OK) as faulty:
        async with open_http(faulty.url, auth=Bearer(Secret("tok"))) as probe:
            assert (await probe.http.request("GET", "/here")).json() == {"ok": True}
        assert [request.target for request in faulty.requests] == ["/here", "/elsewhere?x=1"]
        assert faulty.requests[1].headers["authorization"] == "Bearer tok"


@pytest.mark.parametrize(
    ("status", "method", "body"), [(307, "POST", b'{"a":1}'), (308, "POST", b'{"a":1}'), (303, "GET", b"")]
)
async def test_a_redirect_of_a_post_keeps_it_or_reads_the_result(status: int, method: str, body: bytes) -> None:
    async with open_faulty_server(redirect("/there", status), OK) as faulty, open_http(faulty.url) as probe:
        await probe.http.request("POST", "/here", json={"a": 1})
        assert (faulty.requests[1].method, faulty.requests[1].body) == (method, body)
        assert ("content-type" in faulty.requests[1].headers) == bool(body)


@pytest.mark.parametrize("status", [301, 302])
async def test_an_ambiguous_redirect_of_a_post_names_base_url(status: int) -> None:
    async with open_faulty_server(redirect("/login?secret=1", status)) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match="base_url") as caught:
            await probe.http.request("POST", "/here", json={})
        assert (caught.value.status, caught.value.reason, caught.value.retry) == (status, "config_error", False)
        assert "secret" not in str(caught.value)
        assert len(faulty.requests) == 1


async def test_three_redirects_are_followed_and_no_more() -> None:
    async with open_faulty_server(*[redirect("/next")] * 3, OK) as faulty, open_http(faulty.url) as probe:
        await probe.http.request("GET", "/")
    async with open_faulty_server(redirect("/next")) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match="more than 3 times"):
            await probe.http.request("GET", "/")
        assert len(faulty.requests) == 4


@pytest.mark.parametrize("location", ["http://[bad", "mailto:me", ""])
async def test_a_redirect_to_nowhere_is_an_error(location: str) -> None:
    async with open_faulty_server(redirect(location)) as faulty, open_http(faulty.url) as probe:
        with pytest.raises(ServiceError, match="redirect"):
            await probe.http.request("GET", "/")


async def test_credentials_and_own_headers_do_not_follow_to_another_host() -> None:
    async with (
        open_faulty_server(OK) as other,
        open_faulty_server(redirect(f"{other.url}/signed?sig=1", 307)) as faulty,
    ):
        for auth in (ApiKeyHeader("x-api-key", Secret("key-key")), Bearer(Secret("tok")), Basic("u", Secret("p"))):
            async with open_http(faulty.url, auth=auth) as probe:
                await probe.http.request("POST", "/", json={"a": 1}, headers={"X-Customer-Token": "mine"})
        for request in other.requests:
            assert request.body == b'{"a":1}'
            assert request.headers["content-type"] == "application/json"
            assert not {"x-api-key", "authorization", "x-customer-token"} & set(request.headers)
        assert all("x-customer-token" in request.headers for request in faulty.requests)


async def test_an_absolute_url_gets_the_credentials_on_the_own_origin_only() -> None:
    async with open_faulty_server(OK) as other, open_faulty_server(OK) as faulty:
        async with open_http(f"{faulty.url}/v1", auth=Bearer(Secret("tok"))) as probe:
            await probe.http.request("GET", f"{faulty.url}/files/1?a=b")
            await probe.http.request("GET", f"{other.url}/files/1")
        assert faulty.requests[0].target == "/files/1?a=b"
        assert faulty.requests[0].headers["authorization"] == "Bearer tok"
        assert "authorization" not in other.requests[0].headers


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = self_signed(tmp_path)
    async with open_faulty_server(OK, redirect("http://127.0.0.1/"), tls=context) as faulty:
        async with open_http(faulty.url, max_retries=1) as probe:
            with pytest.raises(ServiceError, match="certificate") as caught:
                await probe.http.request("POST", "/", json={})
        assert (caught.value.type, caught.value.reason) == ("network_error", "ssl_certificate")
        assert not caught.value.maybe_started
        assert not faulty.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with open_http(faulty.url) as probe:
            assert (await probe.http.request("GET", "/")).json() == {"ok": True}
            with pytest.raises(ServiceError, match="redirect"):  # to plain HTTP
                await probe.http.request("GET", "/")
        monkeypatch.delenv("SSL_CERT_FILE")
        async with open_http(faulty.url, verify_tls=False) as probe:
            with pytest.raises(ServiceError, match="redirect"):
                await probe.http.request("GET", "/")
