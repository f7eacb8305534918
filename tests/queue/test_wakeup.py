"""Any change of jobs:pending, whoever made it, wakes who waits for work; listeners learn where messages are missing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import trio

from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.port import GAP, RedisSettings
from emp_trio.queue.waiting import _BUFFER
from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import FaultProxy, open_proxy
from tests.queue.support import CAPABILITIES, HELLO, Library, fake_server

LIMIT = 60.0


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    async with open_proxy(int(valkey.rsplit(":", 1)[1])) as made:
        yield made


@pytest.fixture
def other(valkey: str) -> Iterator[Any]:
    """Another client of the server."""
    with redis.Redis.from_url(valkey) as client:
        yield client


class Pushes:
    """Counts the calls of on_pending and on_connect."""

    def __init__(self) -> None:
        self.pending = self.connects = 0

    def on_pending(self) -> None:
        self.pending += 1

    def on_connect(self) -> None:
        self.connects += 1


@asynccontextmanager
async def tracking(url: str) -> AsyncIterator[tuple[Bridge, Pushes]]:
    pushes = Pushes()
    settings = RedisSettings(url=Secret(url), longest_pause=0.1)
    async with open_bridge(settings, on_pending=pushes.on_pending, on_connect=pushes.on_connect) as bridge:
        yield bridge, pushes


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.001)


WRITES: list[tuple[str, Callable[[Any, Library], Any]]] = [
    ("another client adds", lambda other, lib: other.zadd("jobs:pending", {"j": 1})),
    ("another client removes", lambda other, lib: other.zrem("jobs:pending", "x")),
    ("a function submits", lambda other, lib: lib.call("submit", "j", "n", "{}", "service_required", "t")),
    ("a script adds", lambda other, lib: other.eval("return redis.call('zadd','jobs:pending',1,'j')", 0)),
    ("everything is flushed", lambda other, lib: other.flushall()),
]


@pytest.mark.parametrize(("who", "write"), WRITES)
async def test_any_change_by_others_is_pushed_to_an_idle_connection(
    valkey: str, lib: Library, other: Any, who: str, write: Callable[[Any, Library], Any]
) -> None:
    other.zadd("jobs:pending", {"x": 1})
    async with tracking(valkey) as (bridge, pushes):
        assert bridge.tracking
        assert pushes.connects == 1
        write(other, lib)
        await until(lambda: pushes.pending > 0)


async def test_own_changes_are_not_pushed(valkey: str, lib: Library, other: Any) -> None:
    async with tracking(valkey) as (bridge, pushes):
        await bridge.call("ZADD", "jobs:pending", 1, "j")
        await bridge.call("PING")
        assert pushes.pending == 0
        other.zadd("jobs:pending", {"k": 1})
        await until(lambda: pushes.pending == 1)


async def test_other_keys_are_not_pushed(valkey: str, other: Any) -> None:
    async with tracking(valkey) as (bridge, pushes):
        other.set("jobs:other", 1)
        other.hset("jobs:active:w", "a", "b")
        await bridge.call("PING")
        assert pushes.pending == 0


async def test_burst_of_writes_while_the_connection_is_idle(valkey: str, other: Any) -> None:
    async with tracking(valkey) as (bridge, pushes):
        for number in range(5000):  # nothing reads meanwhile: one push each waits in the socket
            other.zadd("jobs:pending", {f"j{number}": number})
        assert pushes.pending == 0
        await until(lambda: pushes.pending == 5000)
        assert await bridge.call("ECHO", "fine") == b"fine"
        assert pushes.connects == 1


async def test_pushes_between_replies_do_not_mix_them_up(valkey: str, other: Any) -> None:
    async with tracking(valkey) as (bridge, pushes):
        for number in range(200):
            other.zadd("jobs:pending", {f"j{number}": number})
            assert await bridge.call("ECHO", number) == str(number).encode()
        await until(lambda: pushes.pending == 200)


async def test_tracking_is_asked_for_again_after_a_reconnect_which_is_told_of(proxy: FaultProxy, other: Any) -> None:
    async with tracking(f"redis://127.0.0.1:{proxy.port}") as (bridge, pushes):
        proxy.reset_all()
        await until(lambda: pushes.connects == 2)
        other.zadd("jobs:pending", {"j": 1})
        await until(lambda: pushes.pending == 1)
        assert bridge.tracking


async def test_server_that_refuses_tracking_works_without(valkey: str, other: Any) -> None:
    other.execute_command("ACL", "SETUSER", "old", "on", ">pw", "+@all", "-client|tracking", "allkeys", "allchannels")
    try:
        async with tracking(valkey.replace("redis://", "redis://old:pw@")) as (bridge, _):
            assert not bridge.tracking
            assert await bridge.call("PING") == b"PONG"
    finally:
        other.acl_deluser("old")


async def test_claim_on_a_push_gets_the_job(valkey: str, lib: Library) -> None:
    async with tracking(valkey) as (bridge, pushes):
        await library.ensure(bridge)
        worker_queue = WorkerQueue(bridge)
        before = pushes.pending
        lib.submit("j")
        await until(lambda: pushes.pending > before)
        claims = await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", "n")], lease=15)
        assert [c.job_id for c in claims.jobs] == ["j"]


# -- subscriptions


async def test_a_subscription_begins_with_a_gap_and_misses_nothing_after_it(bridge: Bridge, other: Any) -> None:
    for number in range(30):
        channel = f"c{number % 3}"
        async with bridge.subscribe(channel) as messages, bridge.subscribe("c0", "c1") as more:
            with trio.fail_after(LIMIT):
                assert await messages.receive() is GAP
                assert other.publish(channel, str(number)) == 1
                assert await messages.receive() == (channel, str(number).encode())
                assert await more.receive() is GAP
                other.publish("c1", "again")
                while (item := await more.receive()) != ("c1", b"again"):
                    assert item == (channel, str(number).encode())


async def test_listeners_that_come_and_go_quickly_are_never_told_too_early(bridge: Bridge, other: Any) -> None:
    async def one(name: str) -> None:
        for number in range(20):
            channel = f"{name}-{number}"
            async with bridge.subscribe(channel) as messages:
                assert await messages.receive() is GAP
                assert other.publish(channel, "x") == 1, "the subscription did not stand yet"

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for name in "abcdefgh":
                nursery.start_soon(one, name)


async def test_answer_to_an_earlier_ping_does_not_confirm_a_later_subscription() -> None:
    asked: list[list[bytes]] = []
    pings = [trio.Event(), trio.Event()]

    async def answer(command: list[bytes]) -> bytes:
        if command[0] in (b"HELLO", b"CLIENT"):
            return HELLO if command[0] == b"HELLO" else b"+OK\r\n"
        asked.append(command)
        if command[0] != b"PING":
            return b""
        await pings[min(sum(c[0] == b"PING" for c in asked), 2) - 1].wait()
        return b"$%d\r\n%s\r\n" % (len(command[1]), command[1])

    async with (
        fake_server(answer) as url,
        open_bridge(RedisSettings(url=Secret(url))) as bridge,
        bridge.subscribe("a") as first,
    ):
        await until(lambda: len(asked) == 2)  # a's subscription and the ping after it
        async with bridge.subscribe("b") as second:
            pings[0].set()
            with trio.fail_after(LIMIT):
                assert await first.receive() is GAP
            await until(lambda: len(asked) == 4)
            assert second.statistics().current_buffer_used == 0
            pings[1].set()
            with trio.fail_after(LIMIT):
                assert await second.receive() is GAP
            assert first.statistics().current_buffer_used == 0
            assert [command[:2] for command in asked] == [
                [b"SUBSCRIBE", b"a"],
                [b"PING", b"1"],
                [b"SUBSCRIBE", b"b"],
                [b"PING", b"2"],
            ]


async def test_unwanted_messages_are_not_kept(bridge: Bridge, other: Any) -> None:
    async with bridge.subscribe("c", wanted=lambda channel, data: channel == "c" and b"me" in data) as messages:
        assert await messages.receive() is GAP
        for _ in range(3000):
            other.publish("c", "for others")
        other.publish("c", "for me")
        with trio.fail_after(LIMIT):
            assert await messages.receive() == ("c", b"for me")


async def test_after_a_reconnect_there_is_a_gap_before_the_next_message(proxy: FaultProxy, other: Any) -> None:
    settings = RedisSettings(url=Secret(f"redis://127.0.0.1:{proxy.port}"), longest_pause=0.1)
    async with open_bridge(settings) as bridge, bridge.subscribe("c") as messages:
        with trio.fail_after(LIMIT):
            assert await messages.receive() is GAP
            other.publish("c", "1")
            assert await messages.receive() == ("c", b"1")
            for number in range(3):
                proxy.reset_all()
                assert await messages.receive() is GAP
                other.publish("c", f"after {number}")
                assert await messages.receive() == ("c", f"after {number}".encode())


async def test_silent_loss_of_the_subscription_connection_is_noticed(proxy: FaultProxy) -> None:
    url = Secret(f"redis://127.0.0.1:{proxy.port}")
    settings = RedisSettings(url=url, reply_timeout=0.2, connect_timeout=0.5, longest_pause=0.1)
    async with open_bridge(settings) as bridge, bridge.subscribe("c") as messages:
        with trio.fail_after(LIMIT):
            assert await messages.receive() is GAP
            before = proxy.accepted
            proxy.blackhole = True
            await until(lambda: proxy.accepted > before)
            proxy.blackhole = False
            assert await messages.receive() is GAP


async def test_slow_listener_is_told_that_it_missed_messages(bridge: Bridge, other: Any) -> None:
    seen = 0

    def count(channel: str, data: bytes) -> bool:
        nonlocal seen
        seen += 1
        return True

    async with bridge.subscribe("c", wanted=count) as messages:
        assert await messages.receive() is GAP
        for number in range(3 * _BUFFER):
            other.publish("c", str(number))
        await until(lambda: seen == 3 * _BUFFER)
        with trio.fail_after(LIMIT):  # although nothing more is published
            got = [await messages.receive() for _ in range(_BUFFER)]
            assert got == [("c", str(n).encode()) for n in range(_BUFFER)]
            assert await messages.receive() is GAP
            other.publish("c", "fresh")
            assert await messages.receive() == ("c", b"fresh")
        assert messages.statistics().current_buffer_used == 0


async def test_listeners_do_not_disturb_each_other(bridge: Bridge, other: Any) -> None:
    async with bridge.subscribe("c") as slow, bridge.subscribe("c") as quick:
        assert await quick.receive() is GAP
        for number in range(2 * _BUFFER):
            other.publish("c", str(number))
            with trio.fail_after(LIMIT):
                assert await quick.receive() == ("c", str(number).encode())
        assert slow.statistics().current_buffer_used == _BUFFER + 1


async def test_channels_nobody_wants_any_more_are_left(bridge: Bridge, other: Any) -> None:
    async with bridge.subscribe("c"):
        await until(lambda: other.pubsub_numsub("c") == [(b"c", 1)])
    await until(lambda: other.pubsub_numsub("c") == [(b"c", 0)])
