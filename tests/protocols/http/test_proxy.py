"""The fault proxy itself: each fault is what it says, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from emp_trio.testing.proxy import FaultProxy, open_proxy


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[FaultProxy, list[bytes]]]:
    """A proxy in front of a server that sends back what it gets, and what the server got."""
    got: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async for data in stream:
            got.append(bytes(data))
            await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with open_proxy(listeners[0].socket.getsockname()[1]) as proxy:
            yield proxy, got
        nursery.cancel_scope.cancel()


async def talk(stream: trio.SocketStream, data: bytes) -> bytes:
    """Send, and read as much as was sent, or up to the end."""
    await stream.send_all(data)
    answer = b""
    while len(answer) < len(data):
        piece = bytes(await stream.receive_some())
        if not piece:
            break
        answer += piece
    return answer


async def test_nothing_is_changed_without_a_fault() -> None:
    async with echoing() as (proxy, _), await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        assert await talk(stream, b"x" * 500_000) == b"x" * 500_000
        assert (proxy.accepted, proxy.connections) == (1, 1)
        assert (proxy.bytes_up, proxy.bytes_down) == (500_000, 500_000)


async def test_latency_and_bandwidth(autojump_clock: trio.testing.MockClock) -> None:
    async with echoing() as (proxy, _), await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        proxy.latency = 0.5
        began = trio.current_time()
        assert await talk(stream, b"x") == b"x"
        assert trio.current_time() - began == pytest.approx(0.5)
        proxy.latency, proxy.bandwidth = 0.0, 1000
        began = trio.current_time()
        assert len(await talk(stream, b"x" * 5000)) == 5000
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)


async def test_a_reply_is_cut_after_the_request_has_arrived() -> None:
    async with echoing() as (proxy, got):
        proxy.cut_before_reply = 1
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert await talk(stream, b"first") == b""
        assert got == [b"first"]
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            assert await talk(stream, b"second") == b"second"


async def test_a_connection_is_cut_after_so_many_bytes() -> None:
    async with echoing() as (proxy, _):
        proxy.cut_after = 7
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
                assert await talk(stream, b"12345") == b"12345"
                assert await talk(stream, b"67890") == b"67"


async def test_resets() -> None:
    async with echoing() as (proxy, _):
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            await talk(stream, b"x")
            proxy.reset_all()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        proxy.refuse = True
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_a_black_hole_swallows_both_ways_and_the_end_too(autojump_clock: trio.testing.MockClock) -> None:
    async with echoing() as (proxy, got), await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        await talk(stream, b"x")
        proxy.blackhole = True
        await stream.send_all(b"lost")
        with trio.move_on_after(1000) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        assert got == [b"x"]
        proxy.blackhole = False
        assert await talk(stream, b"back") == b"back"


async def test_a_server_that_is_down_looks_like_one() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_proxy(port) as proxy, await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
