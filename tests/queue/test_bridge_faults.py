"""The bridge when the network or the server misbehaves: who learns what, and how soon it works again."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from emp_trio.errors import NotSent, OutcomeUnknown, QueueError, ServerRefused
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.port import GAP, RedisSettings
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import FaultProxy, open_proxy

LIMIT = 60.0  # seconds that anything may take at most


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    async with open_proxy(int(valkey.rsplit(":", 1)[1])) as made:
        yield made


def settings_of(proxy: FaultProxy, **changes: Any) -> RedisSettings:
    values = {"connect_timeout": 2.0, "reply_timeout": 5.0, "longest_pause": 0.1, **changes}
    return RedisSettings(url=Secret(f"redis://127.0.0.1:{proxy.port}"), **values)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another party makes true."""
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.002)


@asynccontextmanager
async def quiet(bridge: Bridge) -> AsyncIterator[None]:
    """Both connections stand, and nothing is on its way on that for subscriptions."""
    async with bridge.subscribe("quiet") as messages:
        with trio.fail_after(LIMIT):
            await messages.receive()
        yield


async def again(bridge: Bridge, *args: str) -> Any:
    """Call (something that does no harm twice) until there is a connection again."""
    with trio.fail_after(LIMIT):
        while True:
            try:
                return await bridge.call(*args)
            except (NotSent, OutcomeUnknown):
                await trio.sleep(0.002)


async def test_many_callers_share_one_connection_and_each_gets_its_own_reply(proxy: FaultProxy) -> None:
    right = 0

    async def ask(bridge: Bridge, name: str) -> None:
        nonlocal right
        for number in range(20):
            reply = await bridge.call("ECHO", f"{name}-{number}")
            right += reply == f"{name}-{number}".encode()

    async with open_bridge(settings_of(proxy)) as bridge:
        async with trio.open_nursery() as nursery:
            for name in range(50):
                nursery.start_soon(ask, bridge, str(name))
        assert right == 1000
        await until(lambda: proxy.accepted >= 2)
        assert proxy.accepted == 2  # commands, subscriptions


async def test_reply_that_is_cut_is_an_unknown_outcome_and_the_command_is_not_sent_again(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        await bridge.call("SET", "n", 0)
        async with quiet(bridge):
            proxy.cut_before_reply = 1
            with pytest.raises(OutcomeUnknown):
                await bridge.call("INCR", "n")
        assert await again(bridge, "GET", "n") == b"1"


async def test_exactly_those_whose_reply_is_missing_learn_of_it(proxy: FaultProxy) -> None:
    outcomes: dict[int, str] = {}

    async def push(bridge: Bridge, number: int) -> None:
        try:
            await bridge.call("SADD", "done", number)
            outcomes[number] = "ok"
        except (NotSent, OutcomeUnknown) as error:
            outcomes[number] = type(error).__name__

    async with open_bridge(settings_of(proxy)) as bridge:
        async with quiet(bridge):
            proxy.cut_before_reply = 1
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(push, bridge, number)
        done = {int(number) for number in await again(bridge, "SMEMBERS", "done")}
    assert sorted(outcomes) == list(range(50))
    assert all(outcomes[number] in ("ok", "OutcomeUnknown") for number in done)
    assert all(number in done for number, outcome in outcomes.items() if outcome == "ok")
    assert "OutcomeUnknown" in outcomes.values()


async def test_without_a_connection_a_call_fails_at_once_and_works_when_the_server_is_back(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        proxy.refuse = True
        proxy.reset_all()
        await until(lambda: not bridge.connected)
        began = trio.current_time()
        for _ in range(20):
            with pytest.raises(NotSent, match="no connection to Redis"):
                await bridge.call("PING")
        assert trio.current_time() - began < 0.5
        posted: list[object] = []
        bridge.post("PING", on_reply=posted.append)
        assert [type(p) for p in posted] == [NotSent]
        proxy.refuse = False
        assert await again(bridge, "PING") == b"PONG"
        assert bridge.problem is None


async def test_reconnecting_is_neither_slow_nor_a_storm(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy, longest_pause=0.2)) as bridge:
        proxy.refuse = True
        proxy.reset_all()
        before = proxy.accepted
        await trio.sleep(1.0)
        tries = proxy.accepted - before
        assert 6 <= tries <= 40  # two connections, pauses of 0.1 to 0.2 s after a few quick ones
        proxy.refuse = False
        began = trio.current_time()
        await again(bridge, "PING")
        assert trio.current_time() - began < 1.0


async def test_half_open_connection_is_given_up_after_the_reply_timeout(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy, reply_timeout=0.5, connect_timeout=0.5)) as bridge:
        await bridge.call("PING")
        proxy.blackhole = True
        began = trio.current_time()
        with trio.fail_after(LIMIT), pytest.raises(OutcomeUnknown):
            await bridge.call("PING")
        assert 0.4 < trio.current_time() - began < 1.5
        proxy.blackhole = False
        assert await again(bridge, "PING") == b"PONG"


async def test_half_open_connections_that_nobody_uses_are_given_up_as_well(proxy: FaultProxy) -> None:
    """Else pushes and cancellations are missed for as long as nothing is asked."""
    settings = settings_of(proxy, reply_timeout=0.5, connect_timeout=0.5)
    async with open_bridge(settings) as bridge, bridge.subscribe("c") as messages:
        assert await messages.receive() is GAP
        for _ in range(2):
            proxy.blackhole, before, began = True, proxy.accepted, trio.current_time()
            await until(lambda: proxy.accepted >= before + 2)  # noqa: B023 - awaited in the same turn
            assert 0.4 < trio.current_time() - began < 2.0
            proxy.blackhole = False
            proxy.reset_all()
            assert await again(bridge, "PING") == b"PONG"
            assert await messages.receive() is GAP


async def test_a_silent_connection_to_a_living_server_is_kept(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy, reply_timeout=0.1)) as bridge, bridge.subscribe("c"):
        await until(lambda: proxy.accepted == 2)
        await trio.sleep(1.0)
        assert proxy.accepted == 2
        assert bridge.connected


async def test_connection_that_is_taken_but_never_answered_does_not_hold_up_the_next_try(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy, connect_timeout=0.3)) as bridge:
        proxy.blackhole = True
        before = proxy.accepted
        proxy.reset_all()
        await until(lambda: proxy.accepted >= before + 2)  # both have connected into the void
        await until(lambda: proxy.accepted >= before + 4)  # and have given that up
        proxy.blackhole = False
        assert await again(bridge, "PING") == b"PONG"


async def test_start_into_the_void_ends_after_the_patience(proxy: FaultProxy) -> None:
    proxy.blackhole = True
    began = trio.current_time()
    with pytest.raises(NotSent):
        async with open_bridge(settings_of(proxy, connect_timeout=0.2, patience=0.6)):
            pass
    assert trio.current_time() - began < 3


async def test_large_replies_and_requests_over_a_slow_line_are_not_taken_for_silence(proxy: FaultProxy) -> None:
    value = b"x" * 2**20
    async with open_bridge(settings_of(proxy, reply_timeout=0.4)) as bridge:
        await bridge.call("SET", "big", value)
        proxy.bandwidth = 1.2e6
        began = trio.current_time()
        assert await bridge.call("GET", "big") == value
        assert trio.current_time() - began > 0.6  # longer than the reply timeout


async def test_a_slow_server_within_the_reply_timeout_is_waited_for(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        proxy.latency = 0.2
        assert await bridge.call("PING") == b"PONG"
        assert bridge.connected


async def test_reset_storm_gives_no_wrong_replies_and_ends_well(proxy: FaultProxy) -> None:
    outcomes = {"ok": 0, "wrong": 0, "lost": 0}
    numbers = itertools.count()

    async def ask(bridge: Bridge, over: trio.Event) -> None:
        while not over.is_set():
            text = f"n{next(numbers)}"
            try:
                reply = await bridge.call("ECHO", text)
                outcomes["ok" if reply == text.encode() else "wrong"] += 1
            except (NotSent, OutcomeUnknown):
                outcomes["lost"] += 1
                await trio.sleep(0.001)

    async with open_bridge(settings_of(proxy)) as bridge:
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, bridge, over)
            for _ in range(40):
                enough = outcomes["ok"] + 3
                await until(lambda: outcomes["ok"] >= enough)  # noqa: B023 - awaited in the same turn
                proxy.reset_all()
            over.set()
        assert await again(bridge, "PING") == b"PONG"
    assert outcomes["wrong"] == 0
    assert outcomes["ok"] >= 120
    assert outcomes["lost"] > 10
    assert proxy.accepted >= 40


@pytest.mark.parametrize("argument", ["\ud800", None, object()])
async def test_command_that_cannot_be_written_hurts_its_caller_alone(proxy: FaultProxy, argument: Any) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        replies: list[Any] = []

        async def neighbour() -> None:
            replies.append(await bridge.call("ECHO", "fine"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour)
            with pytest.raises(QueueError):
                await bridge.call("ECHO", argument)
            bridge.post("ECHO", argument, on_reply=replies.append)
            await until(lambda: len(replies) == 2)
        assert {type(r) for r in replies} == {bytes, QueueError}
        assert bridge.connected
        assert await bridge.call("PING") == b"PONG"


async def test_refusals_carry_the_servers_code(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        await bridge.call("SET", "text", "x")
        for command, code in (
            (("LPUSH", "text", "y"), "WRONGTYPE"),
            (("NOSUCH",), "ERR"),
            (("EVALSHA", "0" * 40, "0"), "NOSCRIPT"),
            (("EVAL", "return redis.error_reply('OOM no memory')", "0"), "OOM"),
            (("EVAL", "return redis.error_reply('TRYAGAIN later')", "0"), "TRYAGAIN"),
            (("EVAL", "return redis.error_reply('MISCONF no disk')", "0"), "MISCONF"),
        ):
            with pytest.raises(ServerRefused) as caught:
                await bridge.call(*command)
            assert caught.value.code == code
            assert code == "ERR" or code in caught.value.message
        assert proxy.accepted == 2  # nothing of this ended a connection
