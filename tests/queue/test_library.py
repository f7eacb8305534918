"""The function library on the server: loaded, kept current, brought back; other libraries are never touched."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
import trio

from emp_trio.errors import ConfigError, ServerRefused
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.client import open_queue
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.settlement import released
from emp_trio.queue.worker_queue import LeaseRef, WorkerQueue
from emp_trio.secrets import Secret
from tests.queue.support import CAPABILITIES, HELLO, Library, fake_server

FLEETS = """#!lua name=jobMatching
redis.register_function('findMatchingJob', function() return 'theirs' end)
"""
TEXT = json.dumps(CAPABILITIES).encode()


def libraries(url: str) -> set[str]:
    with redis.Redis.from_url(url, decode_responses=True) as db:
        reply: Any = db.function_list()
        return {entry["library_name"] if isinstance(entry, dict) else entry[1] for entry in reply}


async def test_loaded_once_and_then_left_as_it_is(bridge: Bridge, valkey: str) -> None:
    assert await library.ensure(bridge)
    assert not await library.ensure(bridge)
    text, version = library.source()
    assert await bridge.call("FCALL", "emp_trio_version", 0) == version.encode()
    assert version in text
    assert libraries(valkey) == {"emp_trio"}


async def test_another_version_is_replaced(bridge: Bridge) -> None:
    text, version = library.source()
    await bridge.call("FUNCTION", "LOAD", text.replace(version, "older"))
    assert await library.ensure(bridge)
    assert await bridge.call("FCALL", "emp_trio_version", 0) == version.encode()


async def test_library_that_has_lost_its_version_function_is_replaced(bridge: Bridge) -> None:
    await bridge.call("FUNCTION", "LOAD", "#!lua name=emp_trio\nredis.register_function('x', function() return 1 end)")
    assert await library.ensure(bridge)
    assert not await library.ensure(bridge)


async def test_library_of_the_fleet_is_not_touched(bridge: Bridge, valkey: str) -> None:
    await bridge.call("FUNCTION", "LOAD", FLEETS)
    await library.ensure(bridge)
    await library.load(bridge, library.source()[0])
    assert await bridge.call("FCALL", "findMatchingJob", 0) == b"theirs"
    assert libraries(valkey) == {"emp_trio", "jobMatching"}


async def test_no_call_fails_while_another_version_takes_its_place(bridge: Bridge, valkey: str, lib: Library) -> None:
    worker_queue, text = WorkerQueue(bridge), library.source()[0]
    over = trio.Event()
    calls = 0

    async def work() -> None:
        nonlocal calls
        while not over.is_set():
            await bridge.call("FCALL", "emp_trio_reap", 0, 10, 3)
            calls += 1

    async with trio.open_nursery() as nursery, open_bridge(RedisSettings(url=Secret(valkey))) as second:
        for _ in range(5):
            nursery.start_soon(work)
        for number in range(50):
            await library.load(second, text.replace("-- Times:", f"-- {number}"))
            await library.ensure(second)
        over.set()
    assert calls > 50
    assert (await worker_queue.reap()).next_due is None


async def test_flushed_library_is_loaded_again_by_the_call_that_misses_it(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    lib.submit("a")
    lib.submit("b")
    for number in range(3):
        lib.db.function_flush()
        claims = await worker_queue.claim(TEXT, "m1", [("w1", f"n{number}")], lease=15)
        assert len(claims.jobs) == (1 if number < 2 else 0)
    lib.db.function_flush()
    async with trio.open_nursery() as nursery:  # many at once
        for _ in range(20):
            nursery.start_soon(worker_queue.reap)


async def test_an_outcome_survives_a_library_that_is_flushed_again_and_again(
    bridge: Bridge, lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib.submit("j")
    lease = LeaseRef("j", lib.claim("w1")["jobs"]["j"][1])
    call, flushes = bridge.call, iter(range(5))

    async def flushed_before(*args: Any, **options: Any) -> Any:
        if args[0] == "FCALL" and next(flushes, None) is not None:
            lib.db.function_flush()
        return await call(*args, **options)

    monkeypatch.setattr(bridge, "call", flushed_before)
    worker_queue = WorkerQueue(bridge, pause=0.01)
    assert await worker_queue.retry_until_accepted(lambda: worker_queue.settle(lease, "m1", released()))
    assert lib.job("j")["status"] == "pending"


async def test_progress_messages_that_cannot_be_sent_as_they_are_do_not_hurt_the_batch(
    worker_queue: WorkerQueue, lib: Library
) -> None:
    for job_id in ("a", "b"):
        lib.submit(job_id)
    claims = await worker_queue.claim(TEXT, "m1", [("w1", "n1"), ("w2", "n2")], lease=15)
    leases = {c.job_id: LeaseRef(c.job_id, c.token) for c in claims.jobs}
    assert (
        await worker_queue.progress([(leases["a"], 10, "odd \ud800", "\udfff", 1), (leases["b"], 20, "fine", "", 0)])
        == []
    )
    assert lib.db.hget("job:a:progress", "message") == "odd ?"
    assert lib.db.hget("job:b:progress", "message") == "fine"


# -- servers that will not do


async def before_functions(command: list[bytes]) -> bytes:
    """Redis 6."""
    match command[0]:
        case b"HELLO":
            return HELLO
        case b"CLIENT":
            return b"+OK\r\n"
        case name:
            return b"-ERR unknown command `" + name + b"`, with args beginning with: \r\n"


async def before_resp3(command: list[bytes]) -> bytes:
    """Redis 5."""
    return b"-ERR unknown command `" + command[0] + b"`, with args beginning with: `3`, \r\n"


@pytest.mark.parametrize("answer", [before_functions, before_resp3])
async def test_server_that_is_too_old_is_a_config_error_that_says_what_is_needed(
    answer: Callable[[list[bytes]], Awaitable[bytes]],
) -> None:
    async with fake_server(answer) as url:
        with trio.fail_after(60), pytest.raises(ConfigError, match=r"Redis 7\.0 or later"):
            async with open_queue(url):
                pass


async def test_something_that_is_no_redis_at_all() -> None:
    async def web(command: list[bytes]) -> bytes:
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"

    async with fake_server(web) as url:
        settings = RedisSettings(url=Secret(url), patience=0.5, connect_timeout=0.3, longest_pause=0.1)
        with pytest.raises(Exception, match="no connection to Redis"):
            async with open_bridge(settings):
                pass


async def test_replies_to_nothing_end_the_connection_but_not_the_bridge() -> None:
    async def chatty(command: list[bytes]) -> bytes:
        return b"+PONG\r\n+EXTRA\r\n" if command[0] == b"PING" else await before_functions(command)

    async with fake_server(chatty) as url, open_bridge(RedisSettings(url=Secret(url), longest_pause=0.05)) as bridge:
        assert await bridge.call("PING") == b"PONG"
        with trio.fail_after(60):
            while bridge.problem is None:
                await trio.sleep(0.001)
            while not bridge.connected:
                await trio.sleep(0.001)


async def test_server_that_refuses_the_library_is_quoted(bridge: Bridge) -> None:
    with pytest.raises(ConfigError, match="can't be loaded"):
        await library.load(bridge, "#!lua name=emp_trio\nthis is not Lua")
    with pytest.raises(ServerRefused):
        await bridge.call("FCALL", "emp_trio_version", 0)
