"""Connections of the pool, as the system sees them."""

from __future__ import annotations

import socket
import ssl

import httpcore

from emp_trio.protocols.http_pool import Pool
from emp_trio.testing.rogue import open_rogue, reply


async def test_tcp_asks_after_a_silent_peer() -> None:
    """A call may wait for its answer for minutes; a peer that is gone is found out long before that."""
    pool = Pool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), most=1, keep=5.0)
    async with open_rogue(reply(200)) as rogue:
        url = httpcore.URL(rogue.url)
        response = await pool.handle_async_request(httpcore.Request("GET", url, headers={"host": "x"}))
        used = response.extensions["network_stream"].get_extra_info("socket")
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        await response.aclose()
        await pool.aclose()
