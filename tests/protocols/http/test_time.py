"""Timeouts, deadlines and cancels: each bounded, named, and without a trace in the pool."""

from __future__ import annotations

import random

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.testing.faulty_server import dribble, event_stream, hang, open_faulty_server, reply, slow
from emp_trio.testing.proxy import open_proxy

from ..support import failure, kind, open_http

OK = reply(200, json={"ok": True})
GZIP = {"content-encoding": "gzip"}
ONE_EXCHANGE = b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


async def test_a_half_open_service_runs_into_the_read_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(hang()) as faulty, open_http(faulty.url, read_timeout=7, max_retries=0) as probe:
        began = trio.current_time()
        error = await failure(probe, "POST", json={})
        assert trio.current_time() - began == pytest.approx(7)
    assert kind(error) == ("timeout", "network_timeout", True)
    assert "waiting for the answer" in str(error)
    assert error.maybe_started


async def test_a_call_may_have_a_read_timeout_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(hang()) as faulty, open_http(faulty.url, read_timeout=7, max_retries=0) as probe:
        began = trio.current_time()
        with pytest.raises(ServiceError):
            await probe.http.request("GET", "/", read_timeout=20)
        assert 19 < trio.current_time() - began < 21


async def test_an_upload_that_stands_still_runs_into_the_write_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """ComfyUI reference 8: an upload is limited by lack of progress; the whole of it may take an hour."""

    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with open_http(f"http://127.0.0.1:{port}", write_timeout=7, max_retries=0) as probe:
            began = trio.current_time()
            error = await failure(probe, "POST", content=b"x" * 50_000_000, timeout=3600)
            assert trio.current_time() - began < 60
        nursery.cancel_scope.cancel()
    assert kind(error)[1:] == ("network_timeout", True)


async def test_a_slow_service_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(slow(OK, 29), dribble(OK, pause=0.5)) as faulty, open_http(faulty.url) as probe:
        assert (await probe.http.request("GET", "/")).json() == {"ok": True}
        assert (await probe.http.request("GET", "/")).json() == {"ok": True}


async def test_the_whole_operation_has_its_own_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(dribble(OK, pause=1)) as faulty, open_http(faulty.url, timeout=10) as probe:
        began = trio.current_time()
        error = await failure(probe, "POST", json={})
        assert trio.current_time() - began == pytest.approx(10)
        assert kind(error) == ("timeout", "network_timeout", True)
        assert error.maybe_started
        assert "10 s" in str(error)
        assert not (await failure(probe, "GET", timeout=5)).maybe_started
        assert trio.current_time() - began == pytest.approx(15)


async def test_a_full_pool_is_named_and_nothing_was_sent(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_faulty_server(hang()) as faulty,
        open_http(faulty.url, max_connections=1, read_timeout=100) as probe,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(failure, probe)
        await faulty.received(1)
        error = await failure(probe, "POST", json={}, timeout=5)
        nursery.cancel_scope.cancel()
    assert "waiting for a free connection" in str(error)
    assert not error.maybe_started


async def test_a_connection_that_is_never_made(autojump_clock: trio.testing.MockClock) -> None:
    class Nowhere(trio.abc.SocketFactory):
        def socket(self, *args: int) -> trio.socket.SocketType:
            class Stuck(trio.socket.SocketType):
                def __init__(self) -> None: ...

                async def connect(self, address: object) -> None:
                    await trio.sleep_forever()

                def close(self) -> None: ...

                def setsockopt(self, *args: object) -> None: ...

            return Stuck()

    trio.socket.set_custom_socket_factory(Nowhere())
    async with open_http("http://127.0.0.1:1", max_retries=0) as probe:
        began = trio.current_time()
        error = await failure(probe, "POST", json={})
        assert trio.current_time() - began == pytest.approx(5)
    assert kind(error) == ("network_error", "network_timeout", True)
    assert not error.maybe_started


async def test_a_streamed_body_that_stops_and_a_block_that_takes_too_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    silent = event_stream(b"x", end=False)
    async with open_faulty_server(silent) as faulty, open_http(faulty.url, read_timeout=7, timeout=20) as probe:

        async def read() -> list[bytes]:
            async with probe.http.stream("GET", "/") as stream:
                return [chunk async for chunk in stream.chunks()]

        with pytest.raises(ServiceError, match="no byte moved in time while reading"):
            await read()
        began = trio.current_time()
        with pytest.raises(ServiceError, match="not finished within 20 s"):
            async with probe.http.stream("GET", "/"):
                await trio.sleep_forever()
        assert trio.current_time() - began == pytest.approx(20)


async def test_the_callers_own_deadline_is_not_turned_into_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async with open_faulty_server(hang()) as faulty, open_http(faulty.url) as probe:
        with trio.move_on_after(3) as scope:
            await probe.http.request("GET", "/")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(scope.deadline)


async def test_a_storm_of_cancels_leaves_the_pool_whole() -> None:
    """Cancelled while connecting, sending, waiting and reading, at random; then every connection is free again."""
    rnd = random.Random(7)
    body = reply(200, b"x" * 200_000)
    async with open_faulty_server(dribble(body, piece=20_000, pause=0.0005)) as faulty:
        async with open_http(faulty.url, max_connections=5) as probe:

            async def impatient(delay: float) -> None:
                with trio.move_on_after(delay):
                    await probe.http.request("POST", "/", content=b"y" * 50_000, expect="any")

            for _ in range(6):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(impatient, rnd.uniform(0, 0.03))
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(impatient, 60)
        with trio.fail_after(60):
            await faulty.emptied()


async def test_closing_the_connector_with_calls_in_flight_leaves_no_connection() -> None:
    async with open_faulty_server(hang()) as faulty:
        with trio.move_on_after(60) as scope:
            async with open_http(faulty.url) as probe, trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(failure, probe)
                await faulty.received(3)
                scope.cancel()
        with trio.fail_after(60):
            await faulty.emptied()


async def test_a_pooled_connection_that_was_reset_meanwhile_is_not_used() -> None:
    async with open_faulty_server(OK) as faulty, open_proxy(faulty.port) as proxy:
        async with open_http(f"http://127.0.0.1:{proxy.port}", max_retries=0) as probe:
            await probe.http.request("POST", "/", json={})
            proxy.reset_all()
            with trio.fail_after(60):
                while proxy.connections:
                    await trio.sleep(0.001)
            assert (await probe.http.request("POST", "/", json={})).json() == {"ok": True}
        assert proxy.accepted == 2


async def test_an_idle_connection_to_another_place_is_not_kept_for_ever() -> None:
    answer = reply(200, b"x")
    async with (
        open_faulty_server(answer) as service,
        open_faulty_server(answer) as visited_once,
        open_faulty_server(answer) as another,
        open_http(service.url, keepalive_timeout=0.02) as probe,
    ):
        await probe.http.request("GET", f"{visited_once.url}/", expect="any")
        with trio.fail_after(60):
            while visited_once.open_connections:
                await trio.sleep(0.03)  # longer than an idle connection is kept
                await probe.http.request("GET", f"{another.url}/", expect="any")
