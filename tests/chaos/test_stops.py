"""Workers and servers that stand still and go on: nobody is charged who did not crash."""

from __future__ import annotations

import random
import signal

import pytest
import trio

from tests.chaos.fleet import LEASE, open_fleet
from tests.chaos.rows import Row
from tests.chaos.server import Server
from tests.worker.support import HEAVY


async def test_workers_that_stand_still_past_their_leases(server: Server, rng: random.Random, row: Row) -> None:
    """What ran in them is done elsewhere; what they say when they wake is refused."""
    stops, machines = (10, 3) if HEAVY else (2, 2)
    async with open_fleet(server.url, rng) as fleet:
        names = [f"m{number}" for number in range(machines)]
        await fleet.start(*names)
        refused = 0
        for _ in range(stops):
            for _ in range(20 if HEAVY else 8):
                fleet.put({"seconds": rng.uniform(0.1, 6.0 if HEAVY else 1.0)}, max_retries=1)
            await fleet.until_settled(most=len(names) * 3)
            name = rng.choice(names)
            fleet.machines[name].signal(signal.SIGSTOP)
            held = fleet.held(name)
            fleet.interrupted(held)
            await fleet.until_claimed_again(held)
            fleet.machines[name].signal(signal.SIGCONT)
        await fleet.until_settled()
        await fleet.stop()
        refused = sum(len(m.events("job.lost")) for m in fleet.machines.values())
        fleet.account(row)
    row.order, row.fault = 30, "SIGSTOP of workers past the lease, then SIGCONT"
    row.done = f"{stops} times, one of {machines} machines, jobs that may fail only once"
    row.notes.append(f"{refused} leases were given up on waking")
    row.check()


@pytest.mark.parametrize("seconds", [8.0, 20.0, 40.0] if HEAVY else [LEASE * 2])
async def test_a_server_that_stands_still(server: Server, rng: random.Random, row: Row, seconds: float) -> None:
    """All workers are alive: no job is charged, although it may fail only once."""
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2", slots=10)
        for _ in range(40 if HEAVY else 20):
            fleet.put({"seconds": 12.0 if HEAVY else rng.uniform(0.1, 1.5)}, max_retries=1)
        await fleet.until_begun(20)
        server.signal(signal.SIGSTOP)
        await trio.sleep(seconds)  # this is the fault
        server.signal(signal.SIGCONT)
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 40, f"SIGSTOP of the server for {seconds:g} s"
    row.done = "2 machines of 10 slots, all busy, jobs that may fail only once"
    if HEAVY and row.charged:
        row.broken.append(f"{row.charged} crashes are charged and nobody crashed")
    row.check()
