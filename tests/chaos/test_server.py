"""A server that dies, is away or forgets, under load: what it accepted and kept is done, once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from tests.chaos.fleet import open_fleet, resumed
from tests.chaos.rows import Row, percentile
from tests.chaos.server import Server, open_server
from tests.worker.support import HEAVY

RESUME = 2.0  # seconds after which claims go on once the server is back


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_a_server_that_is_killed_and_started_again(
    tmp_path: Path, rng: random.Random, row: Row, fsync: str
) -> None:
    """It keeps an append-only file. Jobs are submitted and worked on until the very moment in which it dies."""
    kills = 10 if HEAVY else 1
    async with open_server(tmp_path / "server", fsync=fsync) as server, open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2", slots=6)
        resumes, forgotten = [], []
        for _ in range(kills):
            fleet.submit(40 if HEAVY else 20, longest=0.5, retries=True)
            await fleet.until_settled(most=20 if HEAVY else 10)
            fleet.submit(20, longest=0.5, retries=True)
            await server.kill()
            await trio.sleep(rng.uniform(0, 5.0 if HEAVY else 0.2))  # for so long it is away
            await server.start()
            forgotten += fleet.forget()
            resumes.append(await resumed(fleet.db, [fleet.put({"seconds": 0.01}, score=99)]))
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 50, f"SIGKILL of the server, started again (appendfsync {fsync})"
    row.done = f"{kills} times under load, 2 machines"
    _judge_resumes(row, resumes)
    row.notes.append(f"{len(forgotten)} jobs forgotten by the server itself")
    if fsync == "always" and forgotten:
        row.broken.append(f"the server forgot {len(forgotten)} jobs that it had accepted")
    row.check()


def _judge_resumes(row: Row, resumes: list[float]) -> None:
    row.notes.append(f"claims resumed after {percentile(resumes, 0.99):.1f} s at most")
    if HEAVY and percentile(resumes, 0.99) > RESUME:
        row.broken.append(f"claims resumed after {percentile(resumes, 0.99):.1f} s only")


@pytest.mark.skipif(not HEAVY, reason="the server is away for a minute; EMP_TRIO_HEAVY=1 runs it")
async def test_a_server_that_is_away_for_a_minute(server: Server, rng: random.Random, row: Row) -> None:
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2", slots=6)
        for _ in range(40):
            fleet.put({"seconds": rng.uniform(1.0, 10.0)}, max_retries=1)
        await fleet.until_begun(12)
        await server.kill()
        await trio.sleep(60)  # this is the fault
        await server.start()
        resume = await resumed(fleet.db, [fleet.put({"seconds": 0.01}, score=99)])
        await fleet.until_settled()
        fleet.account(row)
    row.order, row.fault = 60, "the server is away for 60 s"
    row.done = "2 machines, all busy, jobs that may fail only once"
    _judge_resumes(row, [resume])
    row.check()


async def test_a_server_that_is_emptied(server: Server, rng: random.Random, row: Row) -> None:
    """What it forgot is gone; the machines notice, stay, and go on with what comes next."""
    async with open_fleet(server.url, rng) as fleet:
        await fleet.start("m1", "m2")
        fleet.submit(20, longest=1.0)
        await fleet.until_begun(8)
        fleet.db.flushall()
        forgotten = fleet.forget()
        before = dict(fleet.machines)
        fleet.submit(20, longest=0.2, retries=True)
        await fleet.until_settled()
        fleet.account(row)
        if fleet.machines != before:
            row.broken.append("a machine had to be started again")
    row.order, row.fault = 70, "the server is emptied (FLUSHALL)"
    row.done = "once under load, 2 machines"
    row.notes.append(f"{len(forgotten)} jobs forgotten by the server itself")
    row.check()
