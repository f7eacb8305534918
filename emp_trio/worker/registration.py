"""Register the slots with the fleet, keep them alive, and remove them at the end.

Hash and heartbeat: queue protocol 1.5, 4.4. The published messages are in :mod:`emp_trio.worker.fleet_events`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError
from emp_trio.queue.messages import iso
from emp_trio.worker import fleet_events
from emp_trio.worker.availability import Availability
from emp_trio.worker.build import Build
from emp_trio.worker.context import MachineContext
from emp_trio.worker.fleet_events import Messages, ServiceStatus, SlotState
from emp_trio.worker.rivals import Rivals
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.registration")

_encode: Final = msgspec.json.Encoder().encode
_BATCH: Final = 100  # maximum slots per call, so that no call blocks Redis for long
_TOGETHER: Final = 0.05  # seconds in which changes of slots are combined into one status
_MOVES_EVERY: Final = 0.25  # minimum seconds between such statuses
_PUBLISHED_PER_SECOND: Final = 200  # maximum slots in them, because the API writes a hash for each
_REACTION: Final = 0.1  # seconds that the API needs to record the departure of a machine
_RETRY: Final = 0.25  # seconds before a failed registration is retried


class Registration:
    """Writes the slots' registration and heartbeat, all fields each time (queue protocol 1.5).

    Args:
        slots: every slot of the machine.
        availability: capabilities of the machine.
        build: running build.
        rivals: tells which slots another live process has, too: they stay registered.

    Attributes:
        registered: set once the slots are registered.
    """

    def __init__(
        self,
        context: MachineContext,
        slots: Sequence[SlotState],
        availability: Availability,
        build: Build,
        rivals: Rivals,
    ) -> None:
        self.registered = trio.Event()
        self._queue = context.queue
        self._settings = context.settings
        self._slots = slots
        self._build = build
        self._lanes = sorted({slot.lane for slot in slots})
        self._availability = availability
        self._rivals = rivals
        self._connected_at = iso(time.time())
        self._began = time.monotonic()
        self._now = Wakeup()
        self._registering = trio.CancelScope()
        self._published: dict[str, list[ServiceStatus]] = {}
        self._moved = Wakeup()
        self._left = False

    def write_now(self) -> None:
        """Write the registration now, because it changed or Redis may have lost it."""
        self._now.set()

    def moved(self) -> None:
        """Record that a slot started or ended a job."""
        self._moved.set()

    async def publish_moves(self) -> None:
        """Publish the machine's status soon after slots started or ended jobs (queue protocol 2.9).

        Does nothing if an aggregator publishes it. Runs until cancelled.
        """
        pause = max(_MOVES_EVERY, len(self._slots) / _PUBLISHED_PER_SECOND)
        while not self._settings.unified:
            await self._moved.wait()
            await trio.sleep(_TOGETHER)
            if self.registered.is_set() and not self._left:
                self._queue.publish_soon(*self._status("event_driven", self._services(), time.time()))
            await trio.sleep(pause - _TOGETHER)
        await trio.sleep_forever()

    async def run(self) -> None:
        """Register, then write a heartbeat every ``beat_every`` seconds until :meth:`deregister`."""
        with self._registering:
            while True:
                try:
                    await self._heartbeat()
                except EmpTrioError as error:
                    log.warning("beat.failed", error=error.message)
                else:
                    self.registered.set()
                await self._now.wait(self._settings.beat_every if self.registered.is_set() else _RETRY)

    async def freed(self, slot: SlotState, *, unpublished: bool = False) -> None:
        """Publish that a slot is idle without a settlement. Shielded, limited to the time of the settle stage.

        Args:
            unpublished: whether the slot was never published as busy.
        """
        messages = fleet_events.freed(
            slot.worker_id,
            self._settings.machine_id,
            self._build,
            slot.current_job_id if unpublished else None,
            now=time.time(),
        )
        with trio.move_on_after(self._settings.stages.settle, shield=True):
            try:
                await self._write([slot], messages, fresh=True)  # also removes the job from the slot's list
            except EmpTrioError as error:  # the next heartbeat writes it, but does not publish it
                log.debug("beat.failed", error=error.message)

    async def deregister(self, reason: str) -> None:
        """Remove the slots from the fleet's lists (queue protocol 4.9) permanently."""
        self._registering.cancel(reason="the machine leaves the fleet")
        self._left = True
        machine, now, unified = self._settings.machine_id, time.time(), self._settings.unified
        own = [slot.worker_id for slot in self._slots if slot.worker_id not in self._rivals.shared]
        batches = [own[start : start + _BATCH] for start in range(0, len(own), _BATCH)]
        for ids in batches:
            messages: Messages = []
            for worker in ids:
                messages += fleet_events.leaving(worker, machine, self._build, reason, now=now, unified=unified)
            if not unified and not self._rivals.shared and ids is batches[-1]:
                messages.append(self._status("event_driven", self._services(), now, leaving=True))
            await self._queue.deregister(ids, messages, process=self._rivals.nonce)
        await trio.sleep(_REACTION)
        for ids in batches:
            await self._queue.age(ids)

    def _services(self) -> dict[str, list[ServiceStatus]]:
        return {name: self._availability.services(name) for name in self._lanes}

    async def _heartbeat(self) -> None:
        now, fresh = time.time(), not self.registered.is_set()
        services = self._services()
        for start in range(0, len(self._slots), _BATCH):
            batch = self._slots[start : start + _BATCH]
            messages = self._arrivals(batch, now) if fresh else self._changes(batch, services, now)
            if start == 0 and not self._settings.unified:
                messages.append(self._status("initial" if fresh else "periodic", services, now))
            await self._write(batch, messages, fresh=fresh)
        self._published = services

    def _arrivals(self, slots: Sequence[SlotState], now: float) -> Messages:
        capabilities = {name: self._availability.capabilities(name) for name in self._lanes}
        messages: Messages = []
        for slot in slots:
            messages += fleet_events.arriving(
                slot.worker_id,
                self._settings.machine_id,
                capabilities[slot.lane],
                self._build,
                connected_at=self._connected_at,
                now=now,
                unified=self._settings.unified,
            )
        return messages

    def _changes(self, slots: Sequence[SlotState], services: Mapping[str, list[ServiceStatus]], now: float) -> Messages:
        """Return messages about changed services for an aggregator; without one, the machine's status has them."""
        if not self._settings.unified:
            return []
        changed = {name: [o for o in found if o not in self._published[name]] for name, found in services.items()}
        return [
            fleet_events.service_changed(slot.worker_id, self._settings.machine_id, offer, now=now)
            for slot in slots
            for offer in changed[slot.lane]
        ]

    def _status(
        self,
        update: Literal["initial", "periodic", "event_driven"],
        services: Mapping[str, list[ServiceStatus]],
        now: float,
        *,
        leaving: bool = False,
    ) -> tuple[str, bytes]:
        return fleet_events.machine_status(
            self._settings.machine_id,
            self._slots,
            services,
            self._build,
            update=update,
            leaving=leaving,
            gpus=self._availability.gpus,
            uptime=time.monotonic() - self._began,
            now=now,
        )

    async def _write(self, slots: Sequence[SlotState], messages: Messages, *, fresh: bool) -> None:
        capabilities = {
            name: _encode(self._availability.capabilities(name)).decode() for name in {s.lane for s in slots}
        }
        at, about = iso(time.time()), msgspec.structs.astuple(self._build)
        statuses = self._availability.statuses()
        left = await self._queue.heartbeat(
            self._settings.machine_id,
            connected_at=self._connected_at,
            fresh=fresh,
            statuses=_encode({s["connector_id"]: s | {"health_check_at": at} for s in statuses}),
            capabilities=_encode(capabilities),
            slots=_encode([[s.worker_id, s.lane, s.completed, s.failed, *about] for s in slots]),
            messages=messages,
        )
        for job_id in left:
            log.warning("job.left_behind", job=job_id, hint="a worker of the same id ran it; it is watched now")
