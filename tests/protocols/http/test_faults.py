"""Services that break: every fault is a ServiceError that names the call, with the fleet's class."""

from __future__ import annotations

import base64
import gzip
import socket
import tracemalloc
from typing import Any

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import Auth, Basic, Bearer
from emp_trio.protocols.http.errors import describe_status
from emp_trio.secrets import Secret
from emp_trio.testing.faulty_server import Answer, Exchange, cut, dribble, event_stream, open_faulty_server, raw, reply

from ..support import failure, kind, open_http

OK = reply(200, json={"ok": True})
GZIP = {"content-encoding": "gzip"}
ONE_EXCHANGE = b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


@pytest.mark.parametrize("with_reset", [False, True])
async def test_an_answer_cut_at_any_byte_is_an_error_and_never_half_an_answer(with_reset: bool) -> None:
    cuts = [cut(OK, at, reset=with_reset) for at in range(len(ONE_EXCHANGE))]
    async with open_faulty_server(*cuts, OK) as faulty, open_http(faulty.url, max_retries=0) as probe:
        for _ in cuts:
            error = await failure(probe, "POST", json={})
            assert kind(error) == ("network_error", "connection_failed", True)
            assert error.maybe_started
        assert (await probe.http.request("POST", "/", json={})).json() == {"ok": True}
        assert len(faulty.requests) == len(cuts) + 1


async def test_a_chunked_answer_cut_at_any_byte_is_an_error() -> None:
    answer = event_stream(b'{"ok"', b":1}", content_type="application/json")
    size = len(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n") + 10 + 8 + 5
    cuts = [cut(answer, at) for at in range(size)]
    async with open_faulty_server(*cuts, answer) as faulty, open_http(faulty.url, max_retries=0) as probe:
        for _ in cuts:
            error = await failure(probe)
            assert kind(error) == ("network_error", "connection_failed", True), error
        assert (await probe.http.request("GET", "/")).json() == {"ok": 1}


async def test_an_answer_that_comes_byte_by_byte_is_whole() -> None:
    async with open_faulty_server(dribble(OK)) as faulty, open_http(faulty.url) as probe:
        assert (await probe.http.request("GET", "/")).json() == {"ok": True}


async def test_a_service_that_refuses_connections() -> None:
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        async with open_http(f"http://127.0.0.1:{unused.getsockname()[1]}", max_retries=2) as probe:
            error = await failure(probe, "POST", json={})
    assert kind(error) == ("network_error", "connection_failed", True)
    assert not error.maybe_started
    assert "refused" in str(error)
    assert "after 3 tries" in str(error)


async def test_a_name_that_cannot_be_resolved() -> None:
    class NoNames(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object, **kwargs: object) -> list[Any]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: object) -> tuple[str, str]:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(NoNames())
    async with open_http("http://no-such-host.invalid", max_retries=0) as probe:
        error = await failure(probe, "POST", json={})
    assert kind(error) == ("network_error", "dns_resolution", True)
    assert not error.maybe_started


async def test_a_request_that_is_not_taken_to_its_end_was_not_started() -> None:
    """The service resets in the middle of a large upload: it can't have begun, so even a POST is repeated."""
    resets = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal resets
        await stream.receive_some(1000)
        resets += 1
        await stream.aclose()  # with data unread: a reset

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with open_http(f"http://127.0.0.1:{port}", max_retries=2) as probe:
            error = await failure(probe, "POST", content=b"x" * 50_000_000)
        nursery.cancel_scope.cancel()
    assert kind(error) == ("network_error", "connection_failed", True)
    assert not error.maybe_started
    assert resets == 3


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (reply(200, "<p>hi</p>", content_type="text/html"), "unexpected_content_type", "text/html"),
        (reply(200, b"", content_type="application/json"), "missing_expected_data", "empty"),
        (reply(200, b'{"a":', content_type="application/json"), "invalid_response_format", "JSON"),
        (reply(200, b"\xff\xfe", content_type="application/json"), "invalid_response_format", "JSON"),
        (reply(200, b"[" * 100_000, content_type="application/json"), "invalid_response_format", "JSON"),
        (reply(200, b"not gzip", headers=GZIP), "corrupted_data", "decompressed"),
        (reply(200, gzip.compress(b"{}")[:-9], headers=GZIP), "corrupted_data", "not complete"),
        (raw(b"\x00\x01garbage\r\n\r\n"), "corrupted_data", "not HTTP"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "corrupted_data", "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), "corrupted_data", "not HTTP"),
    ],
)
async def test_answers_that_are_none(answer: Answer, expected: str, words: str) -> None:
    async with open_faulty_server(answer) as faulty, open_http(faulty.url, max_retries=0) as probe:
        error = await failure(probe, "POST", json={})
        assert kind(error) == ("response_error", expected, True)
        assert words in str(error)
        assert error.maybe_started
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"x" * 5001),
        reply(200, b"", length=10**12),
        event_stream(b"x" * 4000, b"x" * 4000),
        reply(200, gzip.compress(b"\0" * 10**7), headers={"content-encoding": "gzip"}),
    ],
    ids=["whole", "declared", "chunked", "compressed"],
)
async def test_an_oversized_answer_is_not_read(answer: Answer) -> None:
    async with open_faulty_server(answer) as faulty, open_http(faulty.url, max_response_bytes=5000) as probe:
        error = await failure(probe, expect="any")
        assert kind(error) == ("response_error", "invalid_response_format", False)
        assert "larger than 5000 bytes" in str(error)
        assert len(faulty.requests) == 1


async def test_an_endless_answer_is_left_when_it_is_too_large() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\n\r\n")
        while True:
            await exchange.send(b"x" * 100_000)

    async with open_faulty_server(endless) as faulty, open_http(faulty.url, max_response_bytes=1_000_000) as probe:
        with trio.fail_after(60):
            assert "larger than 1000000 bytes" in str(await failure(probe, expect="any"))
            await faulty.emptied()


async def test_a_call_may_have_its_own_size_limit() -> None:
    async with (
        open_faulty_server(reply(200, b"x" * 5000)) as faulty,
        open_http(faulty.url, max_response_bytes=10) as probe,
    ):
        assert len((await probe.http.request("GET", "/", expect="any", max_bytes=5000)).body) == 5000
        assert "larger than 4999 bytes" in str(await failure(probe, expect="any", max_bytes=4999))


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (reply(400, json={"error": {"message": "bad size"}}), "invalid_payload", "400 Bad Request: bad size"),
        (reply(404, json={"detail": "no such model"}), "unsupported_operation", "no such model"),
        (reply(401, json={"error": "who are you"}), "invalid_api_key", "who are you"),
        (reply(403, json={"error": {"code": 7}}), "insufficient_permissions", "403"),
        (reply(502, "<p>" * 999, content_type="text/html"), "service_down", "502 Bad Gateway: an HTML page"),
        (reply(500, b"\xff\xfe" * 70_000), "service_down", "500 Internal Server Error"),
        (reply(599, b"[]"), "service_down", "599 unknown status: []"),
        (reply(413, b""), "invalid_payload", "413"),
        (cut(reply(500, b"half", length=100), 90), "service_down", "500"),
        (reply(304, b""), "invalid_response_format", "304"),
    ],
)
async def test_error_statuses(answer: Answer, expected: str, words: str) -> None:
    async with open_faulty_server(answer) as faulty, open_http(faulty.url, max_retries=0) as probe:
        error = await failure(probe)
        assert error.reason == expected
        assert words in str(error)
        assert error.status is not None
        assert len(str(error)) < 600


async def test_a_streamed_body_that_breaks_off() -> None:
    async with open_faulty_server(cut(reply(200, b"x" * 100_000), 50_000)) as faulty, open_http(faulty.url) as probe:
        got = 0

        async def read() -> None:
            nonlocal got
            async with probe.http.stream("POST", "/") as stream:
                async for chunk in stream.chunks():
                    got += len(chunk)

        with pytest.raises(ServiceError, match=r"POST http.*: no connection, or it was lost, while reading") as caught:
            await read()
        assert 0 < got < 50_000
        assert caught.value.maybe_started
        assert len(faulty.requests) == 1


@pytest.mark.parametrize(
    ("auth", "secret"),
    [(Bearer(Secret("tok-4711-4711")), "tok-4711-4711"), (Basic("u", Secret("pass-4711")), "pass-4711")],
)
async def test_secrets_that_a_service_echoes_are_taken_out(auth: Auth, secret: str) -> None:
    async def echo(exchange: object) -> None:
        from emp_trio.testing.faulty_server import Exchange

        assert isinstance(exchange, Exchange)
        text = f"bad credential {exchange.request.headers['authorization']} {secret}"
        await reply(401, json={"error": {"message": text}})(exchange)

    async with open_faulty_server(echo) as faulty, open_http(faulty.url, auth=auth) as probe:
        error = await failure(probe)
    for text in (str(error), repr(error), error.message, error.failure.message):
        assert secret not in text
        assert "bad credential" in text
        assert "dTpwYXNzLTQ3MTE" not in text


async def test_an_unusable_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_faulty_server(reply(403, "no"), OK) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with open_http("https://service.invalid", max_retries=0) as probe:
            error = await failure(probe, "POST", json={})
            assert kind(error) == ("network_error", "proxy_error", True)
            assert not error.maybe_started
            assert proxy.requests[0].method == "CONNECT"
        async with open_http("http://service.invalid/v1") as probe:  # plain HTTP: the proxy answers
            assert (await probe.http.request("GET", "/x")).json() == {"ok": True}
            assert proxy.requests[1].target == "http://service.invalid/v1/x"
        async with open_faulty_server(OK) as faulty, open_http(faulty.url) as probe:  # NO_PROXY
            await probe.http.request("GET", "/x")
            assert len(proxy.requests) == 2
        monkeypatch.setenv("ALL_PROXY", "gopher://x")
        monkeypatch.delenv("HTTP_PROXY")
        async with open_http("http://service.invalid") as probe:
            error = await failure(probe)
            assert kind(error) == ("network_error", "proxy_error", False)


async def test_a_proxy_that_echoes_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    password = "Kq7Wm2Xv9Lp4Kt8Rb3Ny"

    async def echo(exchange: Exchange) -> None:
        said = f"{exchange.request.headers.get('proxy-authorization')}, that is {password}"
        await reply(407, json={"error": {"message": said}})(exchange)

    async with open_faulty_server(echo) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", f"://me:{password}@"))
        async with open_http("http://service.invalid/v1") as probe:
            error = await failure(probe)
    assert "that is ***" in error.message
    assert base64.b64encode(f"me:{password}".encode()).decode()[8:20] not in error.message


async def test_a_body_that_unpacks_to_a_thousandfold_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b"\0" * (128 * 2**20), 9)
    async with (
        open_faulty_server(reply(200, bomb, headers=GZIP)) as faulty,
        open_http(faulty.url, max_response_bytes=1000) as probe,
    ):
        tracemalloc.start()
        try:
            assert "larger than" in str(await failure(probe, expect="any"))
            assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
        finally:
            tracemalloc.stop()


async def test_what_follows_a_compressed_body_is_not_gathered() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"{}"))
        while True:
            await exchange.send(b"x" * 100_000)

    async with open_faulty_server(endless) as faulty, open_http(faulty.url, max_response_bytes=1000) as probe:
        with trio.fail_after(60):
            error = await failure(probe, expect="any")
            assert kind(error) == ("response_error", "corrupted_data", True)
            await faulty.emptied()


def test_an_error_body_that_is_nested_too_deep_to_be_shown_is_quoted() -> None:
    for depth in (500, 990, 995, 1000, 5000):
        assert describe_status(500, {}, b"[" * depth + b"]" * depth).status == 500
