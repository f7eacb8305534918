"""Sockets to services that behave, misbehave, fall silent and disappear."""

from __future__ import annotations

import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.errors import ConfigError, ServiceError
from emp_trio.protocols.auth import Basic, Bearer
from emp_trio.protocols.websocket import Socket
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import open_proxy
from emp_trio.testing.rogue import Answer, cut, hang, open_rogue, raw, redirect, reply
from emp_trio.testing.rogue_socket import Peer, websocket

from .support import open_websocket, self_signed

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
            async with probe.open_socket():
                raise AssertionError
    assert str(caught.value).startswith("ws")
    assert "/path: " in str(caught.value)
    assert "hidden" not in str(caught.value)
    return caught.value


@asynccontextmanager
async def open_socket(url: str, **settings: Any) -> AsyncIterator[Socket]:
    async with open_websocket(url, **settings) as probe, probe.open_socket() as socket:
        yield socket


async def drain(socket: Socket) -> list[str | bytes]:
    return [message async for message in socket.messages()]


async def test_messages_go_both_ways() -> None:
    async with open_rogue(websocket(echo)) as rogue, open_websocket(f"{rogue.ws_url}/ws?id=1") as probe:
        async with probe.open_socket(headers={"X-A": "1"}) as socket:
            await socket.send("text \u00e9")
            await socket.send(b"\x00\xff")
            await socket.send_json({"type": "job", "n": [1]})
            assert [await socket.receive() for _ in range(3)] == ["text \u00e9", b"\x00\xff", '{"type":"job","n":[1]}']
            assert not socket.closed
        request = rogue.requests[0]
        assert request.target == "/ws?id=1"
        assert request.headers["host"] == f"127.0.0.1:{rogue.port}"
        assert (request.headers["x-a"], request.headers["user-agent"]) == ("1", "emp-trio-test/1")


async def test_what_was_sent_last_arrives_although_the_block_ends_or_is_cancelled() -> None:
    """Also with messages unread: a plain close would reset the connection and lose it."""
    got: list[str | bytes] = []

    async def script(peer: Peer) -> None:
        for _ in range(200):
            await peer.send("x" * 1000)
        got.append(await peer.receive())
        await peer.listen()

    async with open_rogue(websocket(script)) as rogue, open_websocket(rogue.ws_url, message_queue=1) as probe:
        async with probe.open_socket() as socket:
            await socket.send("goodbye")
        with trio.CancelScope() as scope:
            async with probe.open_socket() as socket:
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(2, shield=True):
                        await socket.send("cancel")
        with trio.fail_after(5):
            await rogue.emptied()
    assert got == ["goodbye", "cancel"]


async def test_a_normal_close_ends_the_messages() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("1")
        await peer.send("2")
        await peer.close(1000)

    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url) as socket:
        assert await drain(socket) == ["1", "2"]
        assert socket.closed
        with pytest.raises(ServiceError, match="closed the socket"):
            await socket.receive()
        with pytest.raises(ServiceError, match=r"^ws://127.0.0.1:\d+: the service"):
            await socket.send("too late")


async def test_messages_before_a_close_are_read_although_a_send_has_met_the_close() -> None:
    async def script(peer: Peer) -> None:
        for word in ("1", "2", "3"):  # one in our queue, one on its way there, one in the library's
            await peer.send(word)
        await peer.close(1000)

    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url, message_queue=1) as socket:
        with trio.fail_after(5), suppress(ServiceError):
            while True:
                await socket.send("x")
        assert await drain(socket) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1001, ("service_error", "service_unavailable", True)),
        (1008, ("auth_error", "insufficient_permissions", False)),
        (1009, ("response_error", "invalid_response_format", False)),
        (1011, ("service_error", "service_down", True)),
        (1013, ("service_error", "service_unavailable", True)),
        (4007, ("service_error", "service_down", True)),
    ],
)
async def test_any_other_close_is_an_error(code: int, kind: tuple[str, str, bool]) -> None:
    async def script(peer: Peer) -> None:
        await peer.send("1")
        await peer.close(code, "because")

    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url) as socket:
        assert await socket.receive() == "1"
        with pytest.raises(ServiceError, match="because") as caught:
            await drain(socket)
        error = caught.value
        assert ((error.type, error.reason, error.retry), error.code) == (kind, str(code))
        for _ in range(2):
            with pytest.raises(ServiceError, match="because") as again:
                await socket.send("x")
            assert again.value is not error


@pytest.mark.parametrize("how", ["fin", "reset", "garbage"])
async def test_a_connection_that_is_lost_is_an_error_for_readers_and_senders(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.send("1")
        if how == "reset":
            peer.reset()
        if how == "garbage":
            await peer.raw(b"\xff\xff\xff\xff nonsense")
            await peer.mute()

    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url) as socket:
        with trio.fail_after(5), pytest.raises(ServiceError) as caught:
            await drain(socket)
        assert caught.value.type == ("response_error" if how == "garbage" else "network_error")
        assert caught.value.retry
        with trio.fail_after(5), pytest.raises(ServiceError):
            await socket.send("x")


async def test_every_byte_at_which_a_message_may_be_cut() -> None:
    frame = b"\x81\x05hello\x81\x05world"
    for at in range(len(frame)):

        async def script(peer: Peer, at: int = at) -> None:
            await peer.raw(frame[:at])

        async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url) as socket:
            for word in ["hello", "world"][: at // 7]:
                assert await socket.receive() == word
            with trio.fail_after(5), pytest.raises(ServiceError, match="connection was lost"):
                await socket.receive()


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
    async with open_rogue(answer) as rogue:
        with trio.fail_after(5):
            error = await failure(rogue.ws_url)
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
    async with open_rogue(hang()) as rogue:
        began = trio.current_time()
        error = await failure(rogue.ws_url, handshake_timeout=4)
        assert trio.current_time() - began == pytest.approx(4, abs=0.1)
        assert (error.type, error.reason) == ("network_error", "network_timeout")
        await rogue.emptied()


@pytest.mark.parametrize("url", ["", "http://x", "ws://", "ws://h:port", "localhost:1"])
async def test_a_url_that_is_none(url: str) -> None:
    async with open_websocket(url) as probe:
        with pytest.raises(ConfigError, match="not a ws or wss URL"):
            async with probe.open_socket():
                raise AssertionError


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = self_signed(tmp_path)
    async with open_rogue(websocket(echo), tls=context) as rogue:
        error = await failure(rogue.ws_url)
        assert (error.type, error.reason) == ("network_error", "ssl_certificate")
        assert "self-signed" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with open_websocket(rogue.ws_url) as probe, probe.open_socket() as socket:
            await socket.send("tls")
            assert await socket.receive() == "tls"


async def test_credentials_go_to_the_own_origin_only() -> None:
    async with open_rogue(websocket(listen)) as other, open_rogue(websocket(listen)) as rogue:
        for auth, value in ((Bearer(Secret("tok")), "Bearer tok"), (Basic("u", Secret("p")), "Basic dTpw")):
            async with (
                open_websocket(rogue.ws_url, auth=auth) as probe,
                probe.open_socket(),
                probe.open_socket(f"{other.ws_url}/x"),
            ):
                pass
            assert rogue.requests[-1].headers["authorization"] == value
            assert "authorization" not in other.requests[-1].headers


async def test_a_secret_that_is_echoed_is_taken_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.close(1008, "token tok-4711 is bad")

    answers = (reply(401, "token tok-4711 is bad"), websocket(script))
    async with open_rogue(*answers) as rogue, open_websocket(rogue.ws_url, auth=Bearer(Secret("tok-4711"))) as probe:
        for _ in answers:
            with pytest.raises(ServiceError, match=r"token \*\*\* is bad"):
                async with probe.open_socket() as socket:
                    await socket.receive()


async def test_trap_1_leaving_a_mute_peer_takes_the_close_timeout_not_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.mute()

    async with open_rogue(websocket(script)) as rogue, open_websocket(rogue.ws_url, close_timeout=1.5) as probe:
        began = trio.current_time()
        async with probe.open_socket():
            pass
        assert trio.current_time() - began == pytest.approx(1.5, abs=0.1)
        with trio.move_on_after(1) as scope:
            async with probe.open_socket():
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - began == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("fragmented", [False, True])
async def test_trap_2_large_messages_pass_and_too_large_ones_are_named(fragmented: bool) -> None:
    async def script(peer: Peer) -> None:
        if fragmented:
            await peer.raw(b"\x02\x7f" + (3_000_000).to_bytes(8, "big") + b"x" * 3_000_000)
            await peer.raw(b"\x80\x7f" + (2_000_000).to_bytes(8, "big") + b"x" * 2_000_000)
        else:
            await peer.send(b"x" * 5_000_000)
        await peer.listen()

    async with open_rogue(websocket(script)) as rogue:
        async with open_websocket(rogue.ws_url) as probe, probe.open_socket() as socket:
            assert await socket.receive() == b"x" * 5_000_000
        async with open_websocket(rogue.ws_url, max_message_bytes=4_999_999) as probe, probe.open_socket() as socket:
            with trio.fail_after(5), pytest.raises(ServiceError, match="max_message_bytes is 4999999") as caught:
                await socket.receive()
            assert (caught.value.reason, caught.value.retry) == ("invalid_response_format", False)


async def test_trap_3_a_slow_reader_is_not_taken_for_a_dead_peer(autojump_clock: trio.testing.MockClock) -> None:
    """Unread messages hold back the pongs, which is our doing; the peer is made to wait and nothing is lost."""

    async def script(peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            for number in range(300):
                await peer.send(f"{number}:" + "x" * 100_000)
            await peer.send("end")

    settings: dict[str, Any] = {"message_queue": 2, "ping_interval": 5, "ping_timeout": 5}
    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url, **settings) as socket:
        await trio.sleep(60)
        assert not socket.closed
        for number in range(300):
            if number % 100 == 0:
                await trio.sleep(30)
            message = await socket.receive()
            assert isinstance(message, str)
            assert message.startswith(f"{number}:")
        assert await socket.receive() == "end"


async def test_a_live_but_quiet_peer_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    quick: dict[str, Any] = {"ping_interval": 5, "ping_timeout": 5}
    async with open_rogue(websocket(listen)) as rogue, open_socket(rogue.ws_url, **quick) as socket:
        with trio.move_on_after(600):
            await socket.receive()
        assert not socket.closed


@pytest.mark.parametrize("reading", [True, False])
async def test_a_dead_peer_is_noticed_whether_we_read_or_not(
    reading: bool, autojump_clock: trio.testing.MockClock
) -> None:
    quick: dict[str, Any] = {"ping_interval": 10, "ping_timeout": 5}
    async with open_rogue(websocket(listen)) as rogue, open_proxy(rogue.port) as proxy:
        async with open_socket(f"ws://127.0.0.1:{proxy.port}", **quick) as socket:
            proxy.blackhole = True
            began = trio.current_time()
            if not reading:
                await trio.sleep(60)
                assert socket.closed
            with pytest.raises(ServiceError, match="did not answer a ping for 5 s") as caught:
                await drain(socket)
            assert (caught.value.type, caught.value.reason) == ("network_error", "network_timeout")
            if reading:
                assert trio.current_time() - began == pytest.approx(15, abs=0.1)
            with pytest.raises(ServiceError, match="did not answer"):
                await socket.send("x")
            left = trio.current_time()
        assert trio.current_time() == pytest.approx(left, abs=0.1)  # no goodbye to the dead


async def test_a_large_message_on_a_slow_line_is_not_taken_for_silence(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"x" * 1_000_000)
        await peer.listen()

    settings: dict[str, Any] = {"ping_interval": 1, "ping_timeout": 2}
    async with open_rogue(websocket(script)) as rogue, open_proxy(rogue.port) as proxy:
        proxy.bandwidth = 20_000
        async with open_socket(f"ws://127.0.0.1:{proxy.port}", **settings) as socket:
            began = trio.current_time()
            assert len(await socket.receive()) == 1_000_000
            assert trio.current_time() - began > 40


async def test_a_cancelled_send_leaves_the_socket_whole_for_others() -> None:
    """Whole or not at all: half a frame on the wire would spoil every job on a shared socket."""
    got: list[str | bytes] = []
    start = trio.Event()

    async def script(peer: Peer) -> None:
        await start.wait()
        while True:
            got.append(await peer.receive())

    async with open_rogue(websocket(script)) as rogue, open_socket(rogue.ws_url) as socket:
        with trio.move_on_after(0.05) as scope:
            await socket.send(b"1" * 20_000_000)
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await socket.send("not begun")
        assert scope.cancelled_caught
        start.set()
        with trio.fail_after(10):
            await socket.send("3")
    assert [len(message) for message in got] == [20_000_000, 1]


async def test_senders_to_a_peer_that_goes_away_are_all_released() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        peer.reset()

    async with open_rogue(websocket(script)) as rogue, open_websocket(rogue.ws_url) as probe:
        failed = 0
        async with probe.open_socket() as socket:

            async def send() -> None:
                nonlocal failed
                try:
                    while True:
                        await socket.send(b"x" * 1_000_000)
                except ServiceError:
                    failed += 1

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(send)
        assert failed == 5


async def test_a_sender_outside_the_block_is_released_when_the_block_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.mute()

    released = trio.Event()

    async def send(socket: Socket) -> None:
        with pytest.raises(ServiceError, match=r"lost|closed"):
            await socket.send(b"x" * 50_000_000)
        released.set()

    async with open_rogue(websocket(script)) as rogue, trio.open_nursery() as nursery:
        async with open_socket(rogue.ws_url, close_timeout=0.1) as socket:
            nursery.start_soon(send, socket)
            await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(5):
            await released.wait()


async def test_what_the_block_raises_passes_through_as_it_is() -> None:
    async with open_rogue(websocket(listen)) as rogue, open_websocket(rogue.ws_url) as probe:
        for error in (ValueError("mine"), ServiceError("mine"), ExceptionGroup("mine", [KeyError()])):
            with pytest.raises(type(error)) as caught:
                async with probe.open_socket():
                    raise error
            assert caught.value is error
            assert str(error).startswith("mine")
        with pytest.raises(ServiceError, match=r"^mine$"):
            async with probe.open_socket(), probe.open_socket():
                raise ServiceError("mine")


async def test_a_storm_of_opened_and_cancelled_sockets_leaves_nothing() -> None:
    async with open_rogue(websocket(echo)) as rogue, open_websocket(rogue.ws_url, close_timeout=0.5) as probe:

        async def talk(seconds: float) -> None:
            with trio.move_on_after(seconds):
                async with probe.open_socket() as socket:
                    while True:
                        await socket.send("x" * 1000)
                        await socket.receive()

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(talk, number * 0.004)
        with trio.fail_after(5):
            await rogue.emptied()


async def test_text_that_cannot_be_sent_is_the_senders_error() -> None:
    async with open_rogue(websocket(echo)) as rogue, open_socket(rogue.ws_url) as socket:
        with pytest.raises(ValueError, match="surrogate"):
            await socket.send("\ud800")
        await socket.send("fine")
        assert await socket.receive() == "fine"
