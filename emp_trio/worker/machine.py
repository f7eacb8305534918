"""The machine: all slots of a process, and their supervision (see docs/how-it-works.md)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from typing import Final

import structlog
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError
from emp_trio.mapping import Plan, WorkerPlan
from emp_trio.queue.bridge import Bridge
from emp_trio.queue.keeping import Others, Process
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.messages import cancelled_job
from emp_trio.queue.port import Gap
from emp_trio.queue.worker_queue import LeaseRef
from emp_trio.worker.adopter import Adopter
from emp_trio.worker.availability import Availability
from emp_trio.worker.build import this_build
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.claimer import Claimer
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.context import MachineContext
from emp_trio.worker.departure import ProcessDeparture
from emp_trio.worker.executor import Executor
from emp_trio.worker.fleet_events import SlotState
from emp_trio.worker.leases import Leases
from emp_trio.worker.reaper import Reaper
from emp_trio.worker.registration import Registration
from emp_trio.worker.rivals import Rivals
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.settler import Settler
from emp_trio.worker.shutdown import Shutdown
from emp_trio.worker.start_events import StartEvents
from emp_trio.worker.wakeup import first_of

log = structlog.get_logger("emp_trio.machine")

_FIRST_LOOK: Final = 0.4  # seconds to wait for health checks before the slots are registered


class Machine:
    """Parts and tasks of a machine; run it with :func:`~emp_trio.worker.run.run_machine`.

    Attributes:
        process: identity of the process, published to others.
        table: leases and slots to renew.
        shutdown: stops the machine.
    """

    def __init__(
        self, plan: Plan, context: MachineContext, connector_context: ConnectorContext, hardware: Hardware
    ) -> None:
        self.settings = settings = context.settings
        self.process = _this_process(settings)
        self.table = LeaseTable(trio.current_time(), self.process.nonce)
        self.shutdown = Shutdown()
        self.rivals = Rivals(self.process.nonce, settings.machine_id)
        self.leases = Leases(self.table, context)
        self.start_events = StartEvents(context, self.leases.renew_now)
        self.reaper = Reaper(context, self.process.nonce, self.queue_changed)
        after = settings.adopt_orphans
        self.adopter = None if after is None else Adopter(context, after, self.queue_changed)
        self.supervisors = {
            name: Supervisor(service, context, connector_context, self._services_changed)
            for name, service in plan.services.items()
        }
        environment = connector_context.environment
        self.availability = Availability(plan.workers, self.supervisors, environment, hardware, context)
        slots = {
            worker.key: [
                SlotState(worker_id=worker_id, worker_type=worker.name, lane=worker.key)
                for worker_id in worker_ids(worker, settings.machine_id)
            ]
            for worker in plan.workers
        }
        self.registration = Registration(
            context,
            [slot for of_type in slots.values() for slot in of_type],
            self.availability,
            this_build(environment),
            self.rivals,
        )
        self.settler = Settler(context, self.leases, self.registration, self._requeued)
        self.executor = Executor(context, self.availability, self.leases, self.registration, self.settler)
        self.claimers = [
            Claimer(lane, of_type, context, self.availability, self.table, self.start_events)
            for lane, of_type in slots.items()
        ]
        self._departure = ProcessDeparture(context, self.process.nonce)
        self._failure: EmpTrioError | None = None

    # -- notifications

    def pushed(self) -> None:
        """Handle a change of the queue by another client."""
        self.start_events.pushed()
        self.queue_changed()

    def queue_changed(self) -> None:
        """Handle a change of the queue."""
        for claimer in self.claimers:
            claimer.queue_changed()

    def connected(self) -> None:
        """Handle a new connection to Redis: earlier changes were not pushed, and leases not renewed."""
        self.reaper.hold_off()
        self.table.connected_anew()
        self.registration.write_now()
        self.pushed()

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        """Handle leases that the keeper found to be lost."""
        self.leases.gone(leases)

    def others(self, found: Others) -> None:
        """Handle the keeper's report of other processes with our slots."""
        suspects, error = self.rivals.hear(found, leaving=self.shutdown.begun.is_set())
        self.table.suspect(suspects)
        if error is not None:
            log.error("machine.id_in_use", error=error.message)
            self.fail(error)

    def fail(self, error: EmpTrioError) -> None:
        """Requeue all jobs and end with this error."""
        self._failure = self._failure or error
        self.shutdown.stop("it can't go on")
        self.shutdown.stop("at once")

    def _requeued(self) -> None:
        """Handle our own requeue, because Redis does not push a connection's own changes."""
        self.reaper.reap_sooner()
        self.queue_changed()

    def _services_changed(self) -> None:
        self.availability.changed()
        self.registration.write_now()
        self.queue_changed()

    # -- supervision (docs/how-it-works.md)

    async def run(self, bridge: Bridge, *, task_status: trio.TaskStatus[Machine]) -> None:
        """Run until drained. A crash of a machine task requeues all jobs and ends the machine.

        Raises:
            MachineIdInUse: another process has the same slots and stays.
        """
        stages, shutdown = self.settings.stages, self.shutdown
        async with trio.open_nursery() as background:
            await self._start_background(background, bridge)
            try:
                await first_of(self.registration.registered.wait, shutdown.begun.wait)
                if self.registration.registered.is_set():
                    self._ready()
                task_status.started(self)
                async with trio.open_nursery() as jobs:
                    try:
                        async with trio.open_nursery() as claims:
                            for claimer in self.claimers:
                                claims.start_soon(claimer.run, lambda job: jobs.start_soon(self.executor.run, job))
                            await shutdown.begun.wait()  # normal operation ends here
                            end = trio.current_time() + self.settings.drain
                            self._stop_claiming()
                            claims.cancel_scope.deadline = min(end, trio.current_time() + stages.settle)
                        with trio.CancelScope(deadline=end):  # running jobs may finish
                            await first_of(self.leases.wait_idle, shutdown.now.wait)
                        self.leases.end_all()  # requeue the others
                    finally:
                        self.settler.limit_settle_time()
            finally:  # also during cancellation: each step is shielded and limited
                await self._store_last_outcomes()
                await self._deregister()
                if self._failure is None:
                    await self._leave_queue()
            background.cancel_scope.cancel(reason="the machine has drained")
        log.info("machine.stopped", machine=self.settings.machine_id)
        if self._failure is not None:
            raise self._failure

    async def _start_background(self, background: trio.Nursery, bridge: Bridge) -> None:
        """Start the background tasks, and wait briefly for the first health checks."""
        await background.start(self.shutdown.watch_signals)
        for supervisor in self.supervisors.values():
            background.start_soon(supervisor.run)
        background.start_soon(self.leases.watch)
        background.start_soon(self.leases.expire)
        background.start_soon(self.leases.publish_progress)
        background.start_soon(self.start_events.run)
        background.start_soon(self._listen, bridge)
        background.start_soon(self.reaper.run)
        background.start_soon(self.settler.run)
        if self.adopter is not None:
            background.start_soon(self.adopter.run)
        with trio.move_on_after(_FIRST_LOOK):  # so that slots are registered with their services
            for supervisor in self.supervisors.values():
                await supervisor.checked.wait()
        background.start_soon(self.registration.run)
        background.start_soon(self.registration.publish_moves)

    def _ready(self) -> None:
        self.table.introduce([slot.worker_id for claimer in self.claimers for slot in claimer.free])
        slots = {claimer.lane: len(claimer.free) for claimer in self.claimers}
        log.info("machine.ready", machine=self.settings.machine_id, slots=slots)

    def _stop_claiming(self) -> None:
        log.info("machine.draining", jobs=len(self.leases), seconds=self.settings.drain)
        self.table.leave()
        self.settler.close()
        for claimer in self.claimers:
            claimer.stop()

    async def _store_last_outcomes(self) -> None:
        """Store the remaining outcomes."""
        with trio.move_on_after(self.settings.stages.settle, shield=True):
            await first_of(self.leases.wait_idle, self.settler.run)

    async def _deregister(self) -> None:
        """Remove the slots from the fleet's lists, and the process from the list of reapers."""
        self.reaper.stop()
        with trio.move_on_after(self.settings.stages.settle, shield=True) as scope:
            try:
                await self.registration.deregister(self.shutdown.reason)
                await self._departure.leave()
            except EmpTrioError as error:
                log.warning("machine.not_deregistered", error=error.message)
        if scope.cancelled_caught:
            log.warning("machine.not_deregistered", error="Redis did not answer in time")

    async def _leave_queue(self) -> None:
        """Leave no job behind without a process that requeues it; a second signal shortens the wait."""
        try:
            await first_of(self._departure.wait_for_successor, self.shutdown.now.wait)
        finally:
            await self._departure.put_back_rest()

    async def _listen(self, bridge: Bridge) -> None:
        """Handle messages of cancelled and announced jobs. The latter wake claimers if the server pushes no changes."""

        def wanted(channel: str, message: bytes) -> bool:
            if channel != "job_submitted":
                return True
            self.start_events.heard(message)
            self.start_events.tracking = bridge.tracking
            return not bridge.tracking

        self.start_events.tracking = bridge.tracking
        async with bridge.subscribe("cancel_job", "job_submitted", wanted=wanted) as heard:
            async for item in heard:
                if isinstance(item, Gap):
                    self.leases.renew_now()  # jobs may have been cancelled meanwhile
                    self.queue_changed()
                elif item[0] == "cancel_job":
                    job_id = cancelled_job(item[1])
                    if job_id is not None:
                        self.leases.cancel(job_id)
                else:
                    self.queue_changed()


def worker_ids(worker: WorkerPlan, machine_id: str) -> list[str]:
    """Return the ids of a worker type's slots: ``{machine}-worker-{type}-{n}``, or the configured single id."""
    if worker.worker_id is not None:
        return [worker.worker_id]
    return [f"{machine_id}-worker-{worker.name}-{number}" for number in worker.numbers]


def _this_process(settings: WorkerSettings) -> Process:
    return Process(
        nonce=secrets.token_hex(8),
        machine_id=settings.machine_id,
        where=f"{socket.gethostname()}, process {os.getpid()}",
        take_over=settings.take_over,
    )
