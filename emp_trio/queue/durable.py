"""Waiting until what was written outlives its server: on its disk, and in a replica where it has one.

WAIT and WAITAOF hold up their connection, so they have one of their own. A mark is written there and waited for, which
stands for whatever was written before by anybody: any number of callers share one wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from emp_trio.errors import ConfigError, EmpTrioError, OutcomeUnknown, ServerRefused
from emp_trio.nursery import open_background
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.durability import server_facts
from emp_trio.queue.port import RedisPort, RedisSettings
from emp_trio.queue.worker_queue import WorkerQueue


class Wait(msgspec.Struct, frozen=True):
    """A command that waits, and what it waits for; its time limit in ms is added as the last argument."""

    command: tuple[str | int, ...]
    place: str

    def reached(self, reply: Any) -> bool:
        """Whether the reply says that it is there: the number of places, WAITAOF's own disk first."""
        return bool((reply[0] if isinstance(reply, list) else reply) >= 1)


def waits_for(info: Mapping[str, str], config: Mapping[str, str], *, waitaof: bool) -> tuple[Wait, ...]:
    """What a durable write has to wait for. Pure.

    Args:
        info, config: as in :func:`emp_trio.queue.durability.durability_risks`, with INFO's section replication.
        waitaof: whether the server knows WAITAOF (Valkey, Redis 7.2).

    Raises:
        ConfigError: the server has nothing that outlives it, or does not say so.
    """
    aof = info.get("aof_enabled") == "1"
    waits = []
    if aof and waitaof:
        waits.append(Wait(("WAITAOF", 1, 0), "on its disk"))
    if info.get("connected_slaves", "0") != "0":
        waits.append(Wait(("WAIT", 1), "in a replica"))
    if not waits and not (aof and config.get("appendfsync") == "always"):  # which answers after it has synced
        raise ConfigError(
            "--durable can't be kept: Redis has neither a replica nor an append-only file that can be waited for "
            "(appendonly yes, with Valkey or Redis 7.2, or with appendfsync always)"
        )
    return tuple(waits)


class DurableWrites:
    """Says when what was written before is durable; made by :func:`open_durable_writes`.

    Args:
        port: a connection that nobody else uses.
        limit: seconds for one wait.
    """

    def __init__(self, port: RedisPort, waits: tuple[Wait, ...], *, limit: float) -> None:
        self._port = port
        self._queue = WorkerQueue(port)
        self._waits = waits
        self._limit = limit
        self._asking: list[Callable[[EmpTrioError | None], None]] = []
        self._asked = trio.Event()

    def when_durable(self, done: Callable[[EmpTrioError | None], None]) -> None:
        """Have ``done`` called with None, or with the OutcomeUnknown that says why that is not known."""
        self._asking.append(done)
        self._asked.set()

    async def wait(self) -> None:
        """Wait until it is durable.

        Raises:
            OutcomeUnknown: it is stored, and nobody knows whether it would outlive the server; repeat it.
        """
        over, outcome = trio.Event(), list[EmpTrioError | None]()

        def done(error: EmpTrioError | None) -> None:
            outcome.append(error)
            over.set()

        self.when_durable(done)
        await over.wait()
        if outcome[0] is not None:
            raise outcome[0]

    async def run(self) -> None:
        """Wait for all that ask, together, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            asking, self._asking = self._asking, []
            error = await self._confirm()
            for done in asking:
                done(error)

    async def _confirm(self) -> EmpTrioError | None:
        try:
            if self._waits:
                await self._queue.function("mark")
            for wait in self._waits:
                if not wait.reached(await self._port.call(*wait.command, round(self._limit * 1000))):
                    return OutcomeUnknown(f"Redis has stored it, but within {self._limit:g} s not {wait.place}")
        except EmpTrioError as error:
            return OutcomeUnknown(f"Redis has stored it, but nobody knows whether it is safe: {error.message}")
        return None


@asynccontextmanager
async def open_durable_writes(settings: RedisSettings) -> AsyncIterator[DurableWrites]:
    """A connection on which to wait for durable writes, for the length of the block.

    Raises:
        ConfigError: the server has nothing that outlives it; or as :func:`~emp_trio.queue.bridge.open_bridge`.
        NotSent: no connection.
    """
    async with open_bridge(settings) as port:
        info, config = await server_facts(port)
        waits = waits_for(info, config, waitaof=await _knows_waitaof(port))
        writes = DurableWrites(port, waits, limit=settings.reply_timeout / 2)  # a wait is no sign of life
        async with open_background() as nursery:
            nursery.start_soon(writes.run)
            yield writes


async def _knows_waitaof(port: RedisPort) -> bool:
    try:
        await port.call("WAITAOF", 0, 0, 1)
    except ServerRefused:
        return False
    return True
