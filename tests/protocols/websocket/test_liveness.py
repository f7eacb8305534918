"""The traps of the library underneath, and telling a dead peer from a slow one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.testing.faulty_server import open_faulty_server
from emp_trio.testing.faulty_websocket import Peer, websocket
from emp_trio.testing.proxy import open_proxy

from ..support import drain, open_socket, open_websocket


async def listen(peer: Peer) -> None:
    await peer.listen()


async def test_trap_1_leaving_a_mute_peer_takes_the_close_timeout_not_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.mute()

    async with (
        open_faulty_server(websocket(script)) as faulty,
        open_websocket(faulty.ws_url, close_timeout=1.5) as probe,
    ):
        began = trio.current_time()
        async with probe.websocket.open():
            pass
        assert trio.current_time() - began == pytest.approx(1.5, abs=0.1)
        with trio.move_on_after(1) as scope:
            async with probe.websocket.open():
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

    async with open_faulty_server(websocket(script)) as faulty:
        async with open_websocket(faulty.ws_url) as probe, probe.websocket.open() as socket:
            assert await socket.receive() == b"x" * 5_000_000
        async with (
            open_websocket(faulty.ws_url, max_message_bytes=4_999_999) as probe,
            probe.websocket.open() as socket,
        ):
            with trio.fail_after(60), pytest.raises(ServiceError, match="max_message_bytes is 4999999") as caught:
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
    async with open_faulty_server(websocket(script)) as faulty, open_socket(faulty.ws_url, **settings) as socket:
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
    async with open_faulty_server(websocket(listen)) as faulty, open_socket(faulty.ws_url, **quick) as socket:
        with trio.move_on_after(600):
            await socket.receive()
        assert not socket.closed


@pytest.mark.parametrize("reading", [True, False])
async def test_a_dead_peer_is_noticed_whether_we_read_or_not(
    reading: bool, autojump_clock: trio.testing.MockClock
) -> None:
    quick: dict[str, Any] = {"ping_interval": 10, "ping_timeout": 5}
    async with open_faulty_server(websocket(listen)) as faulty, open_proxy(faulty.port) as proxy:
        async with open_socket(f"ws://127.0.0.1:{proxy.port}", **quick) as socket:
            proxy.blackhole = True
            began = trio.current_time()
            if not reading:
                await trio.sleep(60)
                assert socket.closed
            with trio.fail_after(600), pytest.raises(ServiceError, match="did not answer a ping for 5 s") as caught:
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
    async with open_faulty_server(websocket(script)) as faulty, open_proxy(faulty.port) as proxy:
        proxy.bandwidth = 20_000
        async with open_socket(f"ws://127.0.0.1:{proxy.port}", **settings) as socket:
            began = trio.current_time()
            assert len(await socket.receive()) == 1_000_000
            assert trio.current_time() - began > 40
