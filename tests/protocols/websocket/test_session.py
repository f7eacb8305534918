"""Sockets in use: messages, closes, losses, senders that are cancelled, and what the block raises."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.websocket import WebSocketSession
from emp_trio.testing.faulty_server import open_faulty_server
from emp_trio.testing.faulty_websocket import Peer, websocket

from ..support import drain, open_socket, open_websocket


async def echo(peer: Peer) -> None:
    while True:
        await peer.send(await peer.receive())


async def listen(peer: Peer) -> None:
    await peer.listen()


async def test_messages_go_both_ways() -> None:
    async with open_faulty_server(websocket(echo)) as faulty, open_websocket(f"{faulty.ws_url}/ws?id=1") as probe:
        async with probe.websocket.open(headers={"X-A": "1"}) as socket:
            await socket.send("text \u00e9")
            await socket.send(b"\x00\xff")
            await socket.send_json({"type": "job", "n": [1]})
            assert [await socket.receive() for _ in range(3)] == ["text \u00e9", b"\x00\xff", '{"type":"job","n":[1]}']
            assert not socket.closed
        request = faulty.requests[0]
        assert request.target == "/ws?id=1"
        assert request.headers["host"] == f"127.0.0.1:{faulty.port}"
        assert (request.headers["x-a"], request.headers["user-agent"]) == ("1", "emp-trio-test/1")


async def test_what_was_sent_last_arrives_although_the_block_ends_or_is_cancelled() -> None:
    """Also with messages unread: a plain close would reset the connection and lose it."""
    got: list[str | bytes] = []

    async def script(peer: Peer) -> None:
        for _ in range(200):
            await peer.send("x" * 1000)
        got.append(await peer.receive())
        await peer.listen()

    async with open_faulty_server(websocket(script)) as faulty, open_websocket(faulty.ws_url, message_queue=1) as probe:
        async with probe.websocket.open() as socket:
            await socket.send("goodbye")
        with trio.CancelScope() as scope:
            async with probe.websocket.open() as socket:
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(2, shield=True):
                        await socket.send("cancel")
        with trio.fail_after(60):
            await faulty.emptied()
    assert got == ["goodbye", "cancel"]


async def test_a_normal_close_ends_the_messages() -> None:
    async def script(peer: Peer) -> None:
        await peer.send("1")
        await peer.send("2")
        await peer.close(1000)

    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url) as socket:
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

    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url, message_queue=1) as socket:
        with trio.fail_after(60), suppress(ServiceError):
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

    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url) as socket:
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

    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url) as socket:
        with trio.fail_after(60), pytest.raises(ServiceError) as caught:
            await drain(socket)
        assert caught.value.type == ("response_error" if how == "garbage" else "network_error")
        assert caught.value.retry
        with trio.fail_after(60), pytest.raises(ServiceError):
            await socket.send("x")


async def test_every_byte_at_which_a_message_may_be_cut() -> None:
    frame = b"\x81\x05hello\x81\x05world"
    for at in range(len(frame)):

        async def script(peer: Peer, at: int = at) -> None:
            await peer.raw(frame[:at])

        async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url) as socket:
            for word in ["hello", "world"][: at // 7]:
                assert await socket.receive() == word
            with trio.fail_after(60), pytest.raises(ServiceError, match="connection was lost"):
                await socket.receive()


async def test_a_cancelled_send_leaves_the_socket_whole_for_others() -> None:
    """Whole or not at all: half a frame on the wire would spoil every job on a shared socket."""
    got: list[str | bytes] = []
    start = trio.Event()

    async def script(peer: Peer) -> None:
        await start.wait()
        while True:
            got.append(await peer.receive())

    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url) as socket:
        with trio.move_on_after(0.05) as scope:
            await socket.send(b"1" * 20_000_000)
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await socket.send("not begun")
        assert scope.cancelled_caught
        start.set()
        with trio.fail_after(60):
            await socket.send("3")
    assert [len(message) for message in got] == [20_000_000, 1]


async def test_senders_to_a_peer_that_goes_away_are_all_released() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        peer.reset()

    async with open_faulty_server(websocket(script)) as faulty, open_websocket(faulty.ws_url) as probe:
        failed = 0
        async with probe.websocket.open() as socket:

            async def send() -> None:
                nonlocal failed
                try:
                    while True:
                        await socket.send(b"x" * 1_000_000)
                except ServiceError:
                    failed += 1

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(send)
        assert failed == 5


async def test_a_sender_outside_the_block_is_released_when_the_block_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.mute()

    released = trio.Event()

    async def send(socket: WebSocketSession) -> None:
        with pytest.raises(ServiceError, match=r"lost|closed"):
            await socket.send(b"x" * 50_000_000)
        released.set()

    async with open_faulty_server(websocket(script)) as faulty, trio.open_nursery() as nursery:
        async with open_socket(faulty.ws_url, close_timeout=0.1) as socket:
            nursery.start_soon(send, socket)
            await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(60):
            await released.wait()


async def test_what_the_block_raises_passes_through_as_it_is() -> None:
    async with open_faulty_server(websocket(listen)) as faulty, open_websocket(faulty.ws_url) as probe:
        for error in (ValueError("mine"), ServiceError("mine"), ExceptionGroup("mine", [KeyError()])):
            with pytest.raises(type(error)) as caught:
                async with probe.websocket.open():
                    raise error
            assert caught.value is error
            assert str(error).startswith("mine")
        with pytest.raises(ServiceError, match=r"^mine$"):
            async with probe.websocket.open(), probe.websocket.open():
                raise ServiceError("mine")


async def test_a_storm_of_opened_and_cancelled_sockets_leaves_nothing() -> None:
    async with open_faulty_server(websocket(echo)) as faulty, open_websocket(faulty.ws_url, close_timeout=0.5) as probe:

        async def talk(seconds: float) -> None:
            with trio.move_on_after(seconds):
                async with probe.websocket.open() as socket:
                    while True:
                        await socket.send("x" * 1000)
                        await socket.receive()

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(talk, number * 0.004)
        with trio.fail_after(60):
            await faulty.emptied()


async def test_text_that_cannot_be_sent_is_the_senders_error() -> None:
    async with open_faulty_server(websocket(echo)) as faulty, open_socket(faulty.ws_url) as socket:
        with pytest.raises(ValueError, match="surrogate"):
            await socket.send("\ud800")
        await socket.send("fine")
        assert await socket.receive() == "fine"
