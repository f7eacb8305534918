"""Opening a socket: refusals, silence, TLS, and where credentials go."""

from __future__ import annotations

import socket as sockets
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.errors import ConfigError, ServiceError
from emp_trio.protocols.auth import Basic, Bearer
from emp_trio.secrets import Secret
from emp_trio.testing.faulty_server import Answer, cut, hang, open_faulty_server, raw, redirect, reply
from emp_trio.testing.faulty_websocket import Peer, websocket

from ..support import open_websocket, self_signed

UPGRADE = {"upgrade": "websocket", "connection": "upgrade"}


async def echo(peer: Peer) -> None:
    while True:
        await peer.send(await peer.receive())


async def listen(peer: Peer) -> None:
    await peer.listen()


async def failure(url: str, **settings: Any) -> ServiceError:
    """The error of opening a socket."""
    async with open_websocket(f"{url}/path?token=hidden", **settings) as probe:
        with pytest.raises(ServiceError) as caught:
            async with probe.websocket.open():
                raise AssertionError
    assert str(caught.value).startswith("ws")
    assert "/path: " in str(caught.value)
    assert "hidden" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(401, json={"error": "who?"}), ("auth_error", "invalid_api_key"), "401 Unauthorized: who?"),
        (reply(403), ("auth_error", "insufficient_permissions"), "403"),
        (reply(404, "nothing here"), ("validation_error", "unsupported_operation"), "nothing here"),
        (reply(429, headers={"retry-after": "7"}), ("rate_limit", "requests_per_minute"), "429"),
        (reply(503), ("service_error", "service_unavailable"), "503"),
        (redirect("/login"), ("response_error", "invalid_response_format"), "302"),
        (reply(200, "hello"), ("response_error", "invalid_response_format"), "200"),
        (raw(b"HTTP/1.0 502 Bad\r\n\r\nuntil the end"), ("service_error", "service_down"), "502"),
        (raw(b""), ("network_error", "connection_failed"), "before the WebSocket handshake"),
        (raw(b"SSH-2.0-x\r\n\r\n"), ("response_error", "invalid_response_format"), "not a WebSocket's"),
        (cut(reply(101), 12), ("network_error", "connection_failed"), "handshake"),
        (reply(101, headers=UPGRADE), ("response_error", "invalid_response_format"), "not a WebSocket's"),
    ],
)  # fmt: skip
async def test_an_upgrade_that_is_refused_says_why_and_at_once(
    answer: Answer, kind: tuple[str, str], words: str
) -> None:
    """Trap 4: the library's error is empty, and a connection that ends is only noticed by the timeout."""
    async with open_faulty_server(answer) as faulty:
        with trio.fail_after(60):
            error = await failure(faulty.ws_url)
        assert (error.type, error.reason) == kind
        assert words in str(error)
        assert error.retry_after == (7 if "429" in words else None)


async def test_nobody_listens_and_no_such_host() -> None:
    with sockets.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(f"ws://127.0.0.1:{unused.getsockname()[1]}")
    assert (error.type, error.reason) == ("network_error", "connection_failed")
    assert "refused" in str(error)

    class NoNames(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object, **kwargs: object) -> list[Any]:
            raise sockets.gaierror(sockets.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: object) -> tuple[str, str]:
            raise AssertionError

    trio.socket.set_custom_hostname_resolver(NoNames())
    assert (await failure("ws://no-such-host.invalid")).reason == "dns_resolution"


async def test_a_handshake_that_hangs_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(hang()) as faulty:
        began = trio.current_time()
        error = await failure(faulty.ws_url, handshake_timeout=4)
        assert trio.current_time() - began == pytest.approx(4, abs=0.1)
        assert (error.type, error.reason) == ("network_error", "network_timeout")
        await faulty.emptied()


@pytest.mark.parametrize("url", ["", "http://x", "ws://", "ws://h:port", "localhost:1"])
async def test_a_url_that_is_none(url: str) -> None:
    async with open_websocket(url) as probe:
        with pytest.raises(ConfigError, match="not a ws or wss URL"):
            async with probe.websocket.open():
                raise AssertionError


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = self_signed(tmp_path)
    async with open_faulty_server(websocket(echo), tls=context) as faulty:
        error = await failure(faulty.ws_url)
        assert (error.type, error.reason) == ("network_error", "ssl_certificate")
        assert "self-signed" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with open_websocket(faulty.ws_url) as probe, probe.websocket.open() as socket:
            await socket.send("tls")
            assert await socket.receive() == "tls"


async def test_credentials_go_to_the_own_origin_only() -> None:
    async with open_faulty_server(websocket(listen)) as other, open_faulty_server(websocket(listen)) as faulty:
        for auth, value in ((Bearer(Secret("tok")), "Bearer tok"), (Basic("u", Secret("p")), "Basic dTpw")):
            async with (
                open_websocket(faulty.ws_url, auth=auth) as probe,
                probe.websocket.open(),
                probe.websocket.open(f"{other.ws_url}/x"),
            ):
                pass
            assert faulty.requests[-1].headers["authorization"] == value
            assert "authorization" not in other.requests[-1].headers


async def test_a_secret_that_is_echoed_is_taken_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.close(1008, "token tok-4711 is bad")

    answers = (reply(401, "token tok-4711 is bad"), websocket(script))
    async with (
        open_faulty_server(*answers) as faulty,
        open_websocket(faulty.ws_url, auth=Bearer(Secret("tok-4711"))) as probe,
    ):
        for _ in answers:
            with pytest.raises(ServiceError, match=r"token \*\*\* is bad"):
                async with probe.websocket.open() as socket:
                    await socket.receive()
