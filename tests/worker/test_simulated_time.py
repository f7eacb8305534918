"""Leases in simulated time: the keeper's thread is replaced by a task, by the same decisions and the same table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.attempt import StageLimits
from emp_trio.errors import NotSent
from emp_trio.jobs import Job
from emp_trio.queue.keeping import KeepSettings, OpenKeeper, Process, Told, first_pace, look, not_done
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.secrets import Redactor
from emp_trio.worker.attempt import Attempt, AttemptTimes
from emp_trio.worker.context import MachineContext
from emp_trio.worker.leases import Leases
from emp_trio.worker.observer import Observers
from emp_trio.worker.settings import WorkerSettings

SETTINGS = WorkerSettings(machine_id="m")
KEEP = KeepSettings(lease=15.0, renew_every=5.0, alive_every=5.0, standstill=30.0)
ME = Process(nonce="n", machine_id="m", where="here")


class Server:
    """A server that only knows how leases end."""

    def __init__(self) -> None:
        self.away = False
        self.lost: dict[str, str] = {}
        self.renewals: list[float] = []

    def renew(self, leases: tuple[LeaseRef, ...]) -> dict[LeaseRef, str]:
        if self.away:
            raise NotSent("away")
        self.renewals.append(trio.current_time())
        return {ref: self.lost[ref.job_id] for ref in leases if ref.job_id in self.lost}


def simulated_keeper(server: Server) -> OpenKeeper:
    """A keeper without a thread."""

    @asynccontextmanager
    async def keeper(table: LeaseTable, process: Process, settings: KeepSettings, told: Told) -> AsyncIterator[None]:
        async def keep() -> None:
            pace = first_pace(trio.current_time())
            while True:
                now = trio.current_time()
                pace, duty = look(pace, table.view(), now, settings)
                if duty.renew:
                    try:
                        gone = server.renew(duty.renew)
                    except NotSent:
                        pace = not_done(pace, now)
                    else:
                        table.renewed([ref for ref in duty.renew if ref not in gone], now + settings.lease)
                        if gone:
                            told.gone(gone)
                await trio.sleep(max(0.001, pace.wake - now))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            yield
            nursery.cancel_scope.cancel()

    return keeper


class Quiet:
    """Who is told."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        self._leases.gone(leases)

    def others(self, found: Any) -> None:
        raise AssertionError("nobody said that we are alive")

    def fail(self, error: Exception) -> None:
        raise error


class Host:
    """Publishes nothing."""

    def has_progress(self) -> None:
        pass

    async def save_checkpoint(self, lease: LeaseRef, checkpoint: bytes) -> None:
        raise AssertionError("no checkpoint")


def attempt(job_id: str) -> Attempt:
    now = trio.current_time()
    times = AttemptTimes(
        expires=now + SETTINGS.lease,
        margin=SETTINGS.lease_margin,
        deadline=now + 3600,
        limits=StageLimits(),
        cleanup=10,
    )
    job = Job(id=job_id, type="t", payload={}, attempt=1)
    return Attempt(job, LeaseRef(job_id, f"x/{job_id}"), f"slot-{job_id}", times, Host(), Redactor())


async def move(table: LeaseTable) -> None:
    while True:
        table.moves(trio.current_time())
        await trio.sleep(1)


@asynccontextmanager
async def leases_of(server: Server, *, moves: bool = True) -> AsyncIterator[Leases]:
    """Leases with their tasks. ``moves``: whether the loop shows that it moves."""
    table = LeaseTable(trio.current_time())
    context = MachineContext(
        settings=SETTINGS,
        queue=None,  # type: ignore[arg-type]  # nothing is published
        redactor=Redactor(),
        observers=Observers(),
    )
    leases = Leases(table, context)
    async with trio.open_nursery() as nursery:
        async with simulated_keeper(server)(table, ME, KEEP, Quiet(leases)):
            nursery.start_soon(leases.expire)
            nursery.start_soon(leases.watch)
            if moves:
                nursery.start_soon(move, table)
            yield leases
        nursery.cancel_scope.cancel()


async def test_an_hour_of_renewals_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with leases_of(server) as leases:
        running = [attempt("a"), attempt("b")]
        for one in running:
            leases.add(one)
        await trio.sleep(3600)
        assert [one.ending for one in running] == [None, None]
    assert 715 < len(server.renewals) < 725


async def test_a_server_that_is_away_costs_the_lease_two_seconds_before_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    async with leases_of(server) as leases:
        one = attempt("a")
        leases.add(one)
        await trio.sleep(60.5)
        server.away = True
        last = server.renewals[-1]
        await trio.sleep_until(last + 12.9)
        assert one.ending is None
        await trio.sleep_until(last + 13.1)
        assert one.ending == "lease_lost"


async def test_a_server_that_is_back_in_time_costs_nothing(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    async with leases_of(server) as leases:
        one = attempt("a")
        leases.add(one)
        for _ in range(20):
            await trio.sleep(10)
            server.away = True
            await trio.sleep(7.5)
            server.away = False
        assert one.ending is None


@pytest.mark.parametrize(("why", "ending"), [("lost", "lease_lost"), ("cancelled", "cancelled")])
async def test_a_refused_renewal_stops_the_attempt_at_once(
    autojump_clock: trio.testing.MockClock, why: str, ending: str
) -> None:
    server = Server()
    async with leases_of(server) as leases:
        one, other = attempt("a"), attempt("b")
        leases.add(one)
        leases.add(other)
        server.lost["a"] = why
        await trio.sleep(5.5)
        assert (one.ending, other.ending) == (ending, None)


async def test_a_loop_that_shows_no_sign_loses_its_leases_after_the_standstill_and_a_lease(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    async with leases_of(server, moves=False) as leases:
        began = trio.current_time()
        one = attempt("a")
        leases.add(one)
        await trio.sleep_until(began + 30 + 13 - 5.5)
        assert one.ending is None
        await trio.sleep_until(began + 30 + 13.1)
        assert one.ending == "lease_lost"
    assert max(server.renewals) <= began + 30
