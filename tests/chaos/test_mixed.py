"""Our machines beside workers of the fleet's other kind, both being killed: on our side nothing is lost or doubled."""

from __future__ import annotations

import random

import trio

from tests.chaos.fleet import open_fleet
from tests.chaos.rows import Row
from tests.chaos.server import Server
from tests.worker.support import HEAVY


async def test_both_kinds_of_workers_are_killed(server: Server, rng: random.Random, row: Row) -> None:
    kills = 30 if HEAVY else 2
    theirs: list[str] = []
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2")
        await fleet.start_originals("o1", "o2")
        done = 0
        fleet.submit(20, retries=True)
        while done < kills:
            fleet.submit(10, retries=True)
            await trio.sleep(rng.expovariate(2.0))  # this is the fault: at any moment
            done += await fleet.kill(rng.choice(["m1", "m2"]))
            name = rng.choice(sorted(fleet.originals))
            theirs += await fleet.kill_original(name)
            await fleet.start_originals(name)
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 140, "SIGKILL in a mixed fleet"
    row.done = f"{kills} kills of our 2 machines, as many of 2 workers of the other kind"
    row.notes.append(f"{len(theirs)} jobs died with workers of the other kind")
    row.check()
