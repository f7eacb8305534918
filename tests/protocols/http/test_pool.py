"""Connections of the pool, as the system sees them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterable

import httpx
import trio

from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.pool import Pool
from emp_trio.testing.faulty_server import open_faulty_server, reply


def request(url: str) -> httpx.Request:
    extensions = {"trace": RequestTrace().trace, "timeout": {"connect": 5.0, "read": 5.0, "write": 5.0}}
    return httpx.Request("POST", url, content=b"{}", extensions=extensions)


async def test_tcp_asks_after_a_silent_peer() -> None:
    """A call may wait for its answer for minutes; a peer that is gone is found out long before that."""
    pool = Pool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), most=1, keep=5.0)
    async with open_faulty_server(reply(200)) as faulty:
        response = await pool.handle_async_request(request(faulty.url))
        used = response.extensions["network_stream"].get_extra_info("socket")
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        await response.aclose()
        await pool.aclose()


async def exchange(pool: Pool, url: str) -> None:
    """A request and its answer."""
    response = await pool.handle_async_request(request(url))
    assert isinstance(response.stream, AsyncIterable)
    async for _ in response.stream:
        pass
    await response.aclose()


class Turns(trio.abc.Instrument):
    """Counts how often one task has been given its turn."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task, self.count = task, 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


async def test_a_request_gives_way_only_to_wait_for_its_answer() -> None:
    """Else jobs whose answers come together all wait for the last of them before any goes on."""
    pool = Pool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), most=1, keep=5.0)
    async with open_faulty_server(reply(200, "ok")) as faulty:
        await exchange(pool, faulty.url)
        turns = Turns(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(turns)
        await exchange(pool, faulty.url)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count == 1
        assert len(faulty.requests) == 2
        await pool.aclose()


async def test_a_cancelled_request_is_not_sent() -> None:
    pool = Pool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), most=1, keep=5.0)
    async with open_faulty_server(reply(200, "ok")) as faulty:
        await exchange(pool, faulty.url)
        with trio.CancelScope() as scope:
            scope.cancel()
            await exchange(pool, faulty.url)
        assert scope.cancelled_caught
        await exchange(pool, faulty.url)
        assert len(faulty.requests) == 2
        await pool.aclose()


async def test_a_cancelled_handshake_closes_its_connection() -> None:
    pool = Pool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), most=1, keep=5.0)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, trio.open_nursery() as nursery:
        task = trio.CancelScope()

        async def ask() -> None:
            with task:
                await pool.handle_async_request(request(f"https://127.0.0.1:{port}/"))

        nursery.start_soon(ask)
        async with await listener.accept() as stream:
            assert await stream.receive_some()  # its hello, which nobody answers
            task.cancel()
            with trio.fail_after(60):
                assert await stream.receive_some() == b""
