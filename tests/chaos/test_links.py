"""What goes wrong between workers and their server, or in it, while both live: jobs are done, and nobody restarts."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import redis
import trio

from emp_trio.testing.proxy import FaultProxy, open_proxy
from tests.chaos.fleet import LEASE, Fleet, open_fleet
from tests.chaos.rows import Row
from tests.chaos.server import Server
from tests.worker.support import HEAVY, eventually

Fault: TypeAlias = Callable[[Any, FaultProxy, random.Random], Awaitable[None]]


async def storm(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """CLIENT KILL of all connections, again and again"""
    for _ in range(50 if HEAVY else 10):
        for kind in ("normal", "pubsub"):
            db.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await trio.sleep(rng.uniform(0, 0.1))


async def half_open(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """a half-open link of one of two machines, for longer than a lease"""
    proxy.blackhole = True
    await trio.sleep(LEASE * 1.5)
    proxy.blackhole = False
    proxy.reset_all()


async def cut_replies(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """replies cut off after what was asked for was done"""
    for _ in range(20 if HEAVY else 3):
        proxy.cut_before_reply = 1
        await eventually(lambda: proxy.cut_before_reply == 0)


async def slow_link(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """each reply 500 ms late"""
    proxy.latency = 0.5 if HEAVY else 0.1
    await trio.sleep(20 if HEAVY else 0.5)
    proxy.latency = 0.0


async def refusal(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """one of two machines is refused any connection, for longer than a lease"""
    proxy.refuse = True
    proxy.reset_all()
    await trio.sleep(LEASE * 1.5)
    proxy.refuse = False


async def full(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """the server is full (maxmemory)"""
    db.config_set("maxmemory", "1")
    with pytest.raises(redis.ResponseError):
        db.set("one", "more")
    await trio.sleep(rng.uniform(0.1, 10.0 if HEAVY else 0.5))
    db.config_set("maxmemory", "0")


async def no_functions(db: Any, proxy: FaultProxy, rng: random.Random) -> None:
    """FUNCTION FLUSH"""
    for _ in range(10 if HEAVY else 3):
        db.function_flush()
        await trio.sleep(rng.uniform(0, 0.2))


FAULTS: list[Fault] = [storm, half_open, cut_replies, slow_link, refusal, full, no_functions]
"""Each is called by what its docstring says."""


async def test_a_live_server_that_is_hard_to_reach_or_to_use(server: Server, rng: random.Random) -> None:
    rows = []
    async with open_proxy(int(server.url.rpartition(":")[2])) as proxy, open_fleet(server.url, rng) as fleet:
        await fleet.start("far", url=f"redis://127.0.0.1:{proxy.port}")
        await fleet.start("near")
        before = dict(fleet.machines)
        for number, fault in enumerate(FAULTS):
            row = await _under(fault, fleet, proxy, rng)
            row.order = 80 + number
            if fleet.machines != before:
                row.broken.append("a machine had to be started again")
            rows.append(row)
    for row in rows:
        row.write()
    assert [row.broken for row in rows] == [[]] * len(rows)


async def _under(fault: Fault, fleet: Fleet, proxy: FaultProxy, rng: random.Random) -> Row:
    """A fault under load: jobs wait, run and end while it strikes."""
    fleet.begin_anew()
    rounds = 5 if HEAVY else 1
    for _ in range(rounds):
        fleet.submit(20, longest=1.0, retries=True)
        await fleet.until_settled(most=16)
        await fault(fleet.db, proxy, rng)
    await fleet.until_settled()
    row = Row(fault=fault.__doc__ or "", done=f"{rounds} times under load, 2 machines")
    fleet.account(row)
    return row
