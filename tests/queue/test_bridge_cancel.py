"""Cancelling a caller of the bridge: no wrong replies, no reconnects, and a claim in flight is handed back."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.queue import library
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.waiting import Request
from emp_trio.queue.worker_queue import Claims, WorkerQueue
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import FaultProxy, open_proxy
from tests.queue.support import CAPABILITIES, HELLO, Library, fake_server

LIMIT = 60.0
TEXT = json.dumps(CAPABILITIES).encode()


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    async with open_proxy(int(valkey.rsplit(":", 1)[1])) as made:
        yield made


def settings_of(proxy: FaultProxy) -> RedisSettings:
    return RedisSettings(url=Secret(f"redis://127.0.0.1:{proxy.port}"))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LIMIT):
        while not condition():
            await trio.sleep(0.002)


async def test_storm_of_cancels_on_one_connection(proxy: FaultProxy) -> None:
    outcomes: Counter[str] = Counter()
    orphans: list[Any] = []
    rnd = random.Random(3)

    async with open_bridge(settings_of(proxy)) as bridge:

        async def storm(name: int) -> None:
            for number in range(40):
                text, reply = f"{name}-{number}", None
                with trio.move_on_after(rnd.uniform(0, 0.03)) as scope:
                    reply = await bridge.call("ECHO", text, on_orphan=orphans.append)
                if scope.cancelled_caught:
                    outcomes["cancelled"] += 1
                else:
                    outcomes["right" if reply == text.encode() else "wrong"] += 1

        proxy.latency = 0.002
        async with trio.open_nursery() as nursery:
            for name in range(8):
                nursery.start_soon(storm, name)
        assert await bridge.call("PING") == b"PONG"
        assert outcomes["wrong"] == 0
        assert outcomes["cancelled"] > 20
        assert outcomes["right"] > 20
        assert outcomes.total() == 320
        assert 0 < len(orphans) <= outcomes["cancelled"]
        assert len(set(orphans)) == len(orphans)
        assert proxy.accepted <= 2


async def test_command_cancelled_before_it_was_sent_is_never_sent(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        for _ in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await bridge.call("INCR", "n")
        assert await bridge.call("GET", "n") is None


async def test_command_cancelled_while_an_earlier_one_is_still_being_sent_is_never_sent() -> None:
    commands: list[bytes] = []
    go_on = trio.Event()

    async def answer(command: list[bytes]) -> bytes:
        match command[0]:
            case b"HELLO":
                return HELLO
            case b"SUBSCRIBE" | b"PING":
                return b""
            case b"CLIENT":
                return b"+OK\r\n"
            case b"WAIT":
                await go_on.wait()  # reads nothing meanwhile, so that the next command fills the line
        commands.append(command[0])
        return b"+OK\r\n"

    async with fake_server(answer) as url, open_bridge(RedisSettings(url=Secret(url))) as bridge:
        replies: list[Any] = []
        bridge.post("WAIT", on_reply=replies.append)
        bridge.post("LARGE", b"x" * 32 * 2**20, on_reply=replies.append)
        await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(3):
            with trio.move_on_after(0.05) as scope:
                await bridge.call("CANCELLED")
            assert scope.cancelled_caught
        go_on.set()
        await until(lambda: len(replies) == 2)
        await bridge.call("LAST")
    assert commands == [b"WAIT", b"LARGE", b"LAST"]


@pytest.mark.parametrize("step", range(12))
async def test_cancelled_claim_is_handed_back_whenever_the_cancel_comes(
    proxy: FaultProxy, lib: Library, step: int
) -> None:
    """Cancels from before the send to after the reply: the job is never claimed, or returned, or an orphan."""
    lib.submit("j")
    orphans: list[Claims] = []
    got: Claims | None = None
    async with open_bridge(settings_of(proxy)) as bridge:
        worker_queue = WorkerQueue(bridge)
        await library.ensure(bridge)
        proxy.latency = 0.02
        with trio.move_on_after(step * 0.003):
            got = await worker_queue.claim(TEXT, "m1", [("w1", "n")], lease=15, on_orphan=orphans.append)
        await bridge.call("PING")  # everything before it has been answered
        held = lib.db.zscore("jobs:pending", "j") is None
    assert held is (got is not None or len(orphans) == 1)
    if orphans:
        [claim] = orphans[0].jobs
        assert (claim.job_id, claim.worker_id, claim.token) == ("j", "w1", "n/1")
        assert lib.settle("j", claim.token, "release") == [1, "done"]
        assert lib.db.zscore("jobs:pending", "j") is not None


async def test_claim_cancelled_in_the_very_moment_of_its_reply(proxy: FaultProxy, lib: Library) -> None:
    lib.submit("j")
    orphans: list[Claims] = []
    async with open_bridge(settings_of(proxy)) as bridge:
        worker_queue = WorkerQueue(bridge)
        await library.ensure(bridge)
        with trio.CancelScope() as scope:
            settle = Request.settle

            def cancel_and_settle(request: Request, value: Any) -> None:
                scope.cancel()  # the caller is on its way out, but has not been there yet
                settle(request, value)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Request, "settle", cancel_and_settle)
                await worker_queue.claim(TEXT, "m1", [("w1", "n")], lease=15, on_orphan=orphans.append)
        assert scope.cancelled_caught
        assert [c.job_id for o in orphans for c in o.jobs] == ["j"]


async def test_posted_command_needs_nobody_to_wait(proxy: FaultProxy) -> None:
    async with open_bridge(settings_of(proxy)) as bridge:
        replies: list[Any] = []
        for number in range(100):
            bridge.post("ECHO", number, on_reply=replies.append)
        await until(lambda: len(replies) == 100)
        assert replies == [str(n).encode() for n in range(100)]


async def test_closing_the_bridge_ends_everything_that_waits(proxy: FaultProxy) -> None:
    outcomes: list[str] = []

    async def ask(bridge: Any) -> None:
        try:
            await bridge.call("PING")
        except Exception as error:
            outcomes.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        with trio.fail_after(LIMIT):
            async with open_bridge(settings_of(proxy)) as bridge:
                proxy.blackhole = True
                for _ in range(5):
                    nursery.start_soon(ask, bridge)
                await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(ask, bridge)
    assert outcomes == ["OutcomeUnknown"] * 5 + ["NotSent"]


async def test_an_error_of_the_body_comes_out_as_it_is(proxy: FaultProxy) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_bridge(settings_of(proxy)):
            raise ZeroDivisionError


async def test_cancelling_the_body_is_quick_and_clean(proxy: FaultProxy) -> None:
    began = trio.current_time()
    with trio.move_on_after(0.1) as scope:
        async with open_bridge(settings_of(proxy)) as bridge:
            proxy.blackhole = True
            await bridge.call("PING")
    assert scope.cancelled_caught
    assert trio.current_time() - began < 2


async def test_bridges_open_and_close_many_times_without_a_trace(proxy: FaultProxy) -> None:
    for _ in range(30):
        with trio.fail_after(LIMIT):
            async with open_bridge(settings_of(proxy)) as bridge:
                assert await bridge.call("PING") == b"PONG"
    await until(lambda: proxy.connections == 0)
