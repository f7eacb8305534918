"""Decide which leases and heartbeats to renew, and when. Pure.

A keeper (:class:`~emp_trio.queue.keeper.ThreadKeeper` in a worker) looks at the table of leases from time to time, lets
:func:`look` decide, does what it says, and writes down what came of it. It needs nothing of the event loop, so that
leases are renewed while the loop stands still; but not for ever: who stands still for good must lose its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, Protocol

import msgspec

from emp_trio.errors import EmpTrioError
from emp_trio.queue.lease_table import LeaseTable, View
from emp_trio.queue.worker_queue import LeaseRef

_SLACK: Final = 1.0  # seconds by which a keeper may oversleep; beyond that the whole process stood still, not its loop
_CLOSE_LOOK: Final = 1.0  # seconds between signs of life while another process may have our slots
RETRY: Final = 0.25  # seconds before what Redis did not take is tried again


class KeepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds.

    Attributes:
        lease: life of a lease from its renewal on.
        renew_every: pause between renewals.
        alive_every: pause between signs of life of the process and its slots.
        standstill: how long the loop may stand still before nothing is kept alive any more.
    """

    lease: float
    renew_every: float
    alive_every: float
    standstill: float


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """This process among the others.

    Attributes:
        nonce: made anew at each start.
        machine_id: the machine it belongs to.
        where: host and process id, for people.
        take_over: whether another process that has its slots is to leave.
    """

    nonce: str
    machine_id: str
    where: str
    take_over: bool = False


class Other(msgspec.Struct, frozen=True):
    """Another process, as it describes itself (see ``functions/process.lua``). Times are ms on the server's clock."""

    nonce: str
    machine_id: str
    where: str
    started: int
    seen: int
    take_over: bool
    leaving: bool


class Others(msgspec.Struct, frozen=True, kw_only=True):
    """What a sign of life brought to light.

    Attributes:
        now, started: ms on the server's clock: of this sign of life, and of the first one of this process.
        take_over: whether this process still is one that takes over.
        slots: (worker id, nonce) of our slots that another process had.
        known: what is known of those, and of whom the table suspects.
    """

    now: int
    started: int
    take_over: bool
    slots: tuple[tuple[str, str], ...] = ()
    known: tuple[Other, ...] = ()


class Told(Protocol):
    """Who is told of what a keeper finds out, in the loop's own thread."""

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        """These leases are ``lost``, or their jobs were ``cancelled``."""

    def others(self, found: Others) -> None:
        """There are other processes with slots of ours, or there were."""

    def fail(self, error: EmpTrioError) -> None:
        """The keeper itself can't go on."""


class OpenKeeper(Protocol):
    """Starts a keeper for the time of an ``async with`` block."""

    def __call__(
        self, table: LeaseTable, process: Process, settings: KeepSettings, told: Told
    ) -> AbstractAsyncContextManager[None]: ...


class Pace(msgspec.Struct, frozen=True):
    """What a keeper knows from its look before.

    Attributes:
        looked: when that was.
        wake: when it meant to look again.
        renew_at, alive_at: when the next renewal and sign of life are due.
        still: seconds for which the loop has stood still.
        loop_at: when the loop had been seen to move.
    """

    looked: float
    wake: float
    renew_at: float
    alive_at: float
    still: float
    loop_at: float


class Duty(msgspec.Struct, frozen=True):
    """What a keeper has to do now.

    Attributes:
        renew: leases to renew.
        claims: (worker id, nonce) of claims to keep whose replies have not been read.
        alive: whether to say that process and slots are alive.
        loop: what is new about the loop: it stands ``still``, has done so for too long (``stopped``), ``moves`` again.
    """

    renew: tuple[LeaseRef, ...]
    claims: tuple[tuple[str, str], ...]
    alive: bool
    loop: Literal["", "still", "stopped", "moves"]


def first_pace(now: float) -> Pace:
    """Of a keeper that begins: everything is due."""
    return Pace(looked=now, wake=now, renew_at=now, alive_at=now, still=0.0, loop_at=now)


def look(pace: Pace, view: View, now: float, settings: KeepSettings) -> tuple[Pace, Duty]:
    """Decide what is due.

    A loop that gives no sign counts as still only for the time in which the keeper itself could see it: after a stop of
    the whole process (a suspended machine, SIGSTOP, code that holds the interpreter's lock) the loop gets its chance.
    """
    seen = min(now - pace.looked, pace.wake - pace.looked + _SLACK)
    still = min(now - view.loop_at, seen) if view.loop_at > pace.loop_at else pace.still + seen
    stopped = still > settings.standstill
    renew = not stopped and (view.asked or now >= pace.renew_at)
    alive = not stopped and (view.introduce or now >= pace.alive_at)
    renew_at = now + settings.renew_every if renew else pace.renew_at
    alive_at = now + settings.alive_every if alive else pace.alive_at
    if view.suspects:
        alive_at = min(alive_at, now + _CLOSE_LOOK)
    stops_at = now + settings.standstill - still + 0.01
    wake = now + RETRY if stopped else max(now, min(renew_at, alive_at, stops_at))
    after = Pace(looked=now, wake=wake, renew_at=renew_at, alive_at=alive_at, still=still, loop_at=view.loop_at)
    loop = _news(pace.still, still, settings)
    return after, Duty(renew=view.held if renew else (), claims=view.claims if renew else (), alive=alive, loop=loop)


def _news(before: float, now: float, settings: KeepSettings) -> Literal["", "still", "stopped", "moves"]:
    worth_saying = min(settings.renew_every + _SLACK + 0.1, settings.standstill)  # never what one long look may add
    if before <= settings.standstill < now:
        return "stopped"
    if before <= worth_saying < now:
        return "still"
    return "moves" if now <= worth_saying < before else ""


def not_done(pace: Pace, now: float) -> Pace:
    """Redis did not take what was due at the last look: do it again soon."""
    again = now + RETRY
    return msgspec.structs.replace(
        pace, renew_at=min(pace.renew_at, again), alive_at=min(pace.alive_at, again), wake=min(pace.wake, again)
    )
