"""Processes that are killed, and jobs that kill: none is lost, none ends twice, none is blamed for another's crash."""

from __future__ import annotations

import random

import trio

from tests.chaos.fleet import LEASE, open_fleet
from tests.chaos.rows import Row, percentile
from tests.chaos.server import Server
from tests.worker.support import HEAVY, eventually

RECOVERY = LEASE + 1.0  # seconds within which 99 of 100 interrupted jobs are claimed again


async def test_workers_killed_at_random_moments(server: Server, rng: random.Random, row: Row) -> None:
    kills, machines = (200, 4) if HEAVY else (6, 2)
    async with open_fleet(server.url, rng) as fleet:
        names = [f"m{number}" for number in range(machines)]
        await fleet.start(*names, slots=6)
        done = 0
        fleet.submit(20, retries=True)
        while done < kills:
            await trio.sleep(rng.expovariate(1.0 if HEAVY else 3.0))  # this is the fault: at any moment
            victim = rng.choice(names)
            await eventually(lambda gone=victim: set(fleet.ready()) - {gone})  # somebody who can recover is left
            done += await fleet.kill(victim)
            if len(fleet.jobs) < 10 * kills:
                fleet.submit(10 if HEAVY else 8, retries=True)
        fleet.submit(10 * kills - len(fleet.jobs), retries=True)
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 10, "SIGKILL of workers"
    row.done = f"{kills} kills at random moments, {machines} machines of 6 slots, a third of the jobs fail for a while"
    if HEAVY and percentile(row.recoveries, 0.99) > RECOVERY:
        row.broken.append(f"recovery took more than {RECOVERY:g} s")
    hit = sum(fleet.hits.values())
    if row.charged > hit:
        row.broken.append(f"{row.charged} crashes are charged, {hit} jobs were hit")
    row.check()


async def test_a_job_that_kills_its_process_beside_others(server: Server, rng: random.Random, row: Row) -> None:
    """It ends in the dead letters after three crashes; those that run beside it each time do not."""
    async with open_fleet(server.url, rng) as fleet:
        long = [fleet.put({"seconds": 1.0}) for _ in range(4)]
        poison = fleet.put({"seconds": 0.5}, "poison", max_retries=10)
        await fleet.start("m1", words="unsteady:4,poison:1")
        await eventually(lambda: fleet.db.hget(f"job:{poison}", "crashes") == "2")
        fleet.submit(20 if HEAVY else 4, longest=0.5)
        await fleet.until_settled()
        fleet.account(row, causes=lambda job_id: job_id == poison)
        beside = max(int(fleet.db.hget(f"job:{job_id}", "crashes")) for job_id in long)
        job = fleet.db.hgetall(f"job:{poison}")
    row.order, row.fault = 20, "a job that kills its process"
    row.done = "one machine, started again each time, that takes 4 longer jobs along"
    row.notes.append(f"dead letter after {job.get('crashes')} crashes, the others had {beside}")
    if (job["status"], job.get("crashes")) != ("failed", "3"):
        row.broken.append(f"the job is {job['status']} after {job.get('crashes')} crashes")
    row.check()
