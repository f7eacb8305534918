"""Machines that are told to leave, all of them in the end: nothing is lost, and nothing is left that nobody sees."""

from __future__ import annotations

import random
import signal
from time import monotonic

import trio

from tests.chaos.fleet import Fleet, open_fleet
from tests.chaos.rows import Row
from tests.chaos.server import Server
from tests.worker.support import HEAVY

DRAIN = 5.0  # seconds; what the machines of a fleet are started with


async def leave(fleet: Fleet, name: str, *numbers: signal.Signals) -> tuple[int, float]:
    """Tell a machine to leave by these signals; its exit code, and the seconds it took."""
    began, machine = monotonic(), fleet.machines[name]
    for number in numbers:
        known = len(machine.events("signal"))
        machine.signal(number)
        while len(machine.events("signal")) == known and machine.process.returncode is None:
            await trio.sleep(0.005)
    return await machine.code(), monotonic() - began


async def test_machines_that_are_restarted_one_after_the_other(server: Server, rng: random.Random, row: Row) -> None:
    """A rolling restart under load; a third of the jobs takes longer than the drain."""
    machines = [f"m{number}" for number in range(4 if HEAVY else 2)]
    numbers = [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP,)]
    left: list[tuple[int, float]] = []
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start(*machines)
        for turn in range(3 if HEAVY else 1):
            for number, name in enumerate(machines):
                fleet.submit(20 if HEAVY else 8, longest=DRAIN * 1.5 if HEAVY else 1.0)
                await fleet.until_settled(most=len(machines) * 4)
                old = fleet.machines[name]
                left.append(await leave(fleet, name, *numbers[(turn + number) % 3]))
                await fleet.until_ready(name, after=old)
        await fleet.until_settled()
        fleet.account(row)
        used = [job_id for job_id in fleet.jobs if fleet.db.hget(f"job:{job_id}", "retry_count") != "0"]
    row.order, row.fault = 120, "rolling restart (SIGTERM, SIGINT twice, SIGHUP)"
    row.done = f"{len(left)} machines left and came back under load"
    row.notes.append(f"left within {max(seconds for _, seconds in left):.1f} s, drain {DRAIN:g} s")
    if any(code != 0 for code, _ in left):
        row.broken.append(f"exit codes {[code for code, _ in left]}")
    if used:
        row.broken.append(f"{len(used)} jobs were charged with an attempt")
    if HEAVY and (row.charged or max(seconds for _, seconds in left) > DRAIN + 2.0):
        row.broken.append("somebody was charged, or took too long")
    row.check()


async def test_the_last_machine_leaves_and_the_fleets_other_workers_go_on(
    server: Server, rng: random.Random, row: Row
) -> None:
    """What was running, delayed or waiting is where workers look that know of nothing of ours; they finish it all."""
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2")
        fleet.submit(60 if HEAVY else 16, longest=4.0 if HEAVY else 0.6, retries=True)
        await fleet.until_settled(most=50 if HEAVY else 12)
        codes = await fleet.stop()
        waiting, pending = fleet.unsettled(), set(fleet.db.zrange("jobs:pending", 0, -1))
        row.lost = [job_id for job_id in waiting if job_id not in pending]
        left = sorted(fleet.db.scan_iter("emp:*", count=1000))
        await fleet.start_originals("o1", "o2")
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 130, "the last machine leaves (SIGTERM)"
    row.done = f"2 machines under load; {len(waiting)} jobs were left, which 2 workers of the other kind then did"
    if any(codes):
        row.broken.append(f"exit codes {codes}")
    if left:
        row.broken.append(f"left behind: {' '.join(left)}")
    row.check()
