"""One machine: every slot of one process, and the tasks that keep them honest (see docs/how-it-works.md)."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from functools import partial
from typing import Final

import structlog
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.saver import open_asset_saver
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, leading_error
from emp_trio.mapping import Plan, WorkerPlan
from emp_trio.queue import library, messages
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.keeper import open_thread_keeper
from emp_trio.queue.keeping import KeepSettings, OpenKeeper, Others, Process
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.port import Gap, RedisSettings
from emp_trio.queue.worker_queue import Claim, LeaseRef, WorkerQueue
from emp_trio.secrets import Redactor
from emp_trio.worker.adopter import Adopter
from emp_trio.worker.availability import Availability
from emp_trio.worker.build import this_build
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.claimer import Claimer
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.departure import Leaving
from emp_trio.worker.first_words import FirstWords
from emp_trio.worker.fleet_events import SlotState
from emp_trio.worker.leases import Leases
from emp_trio.worker.reaper import Reaper
from emp_trio.worker.registration import Registration
from emp_trio.worker.rivals import Rivals
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.shutdown import Shutdown
from emp_trio.worker.slots import Slots
from emp_trio.worker.standstill import where
from emp_trio.worker.wakeup import first_of

log = structlog.get_logger("emp_trio.machine")

_FIRST_LOOK: Final = 0.4  # seconds that services have to show their health before the slots are registered


class Machine:
    """The parts of one machine and the tasks over them; run it with :func:`run_machine`."""

    def __init__(
        self,
        plan: Plan,
        settings: WorkerSettings,
        worker_queue: WorkerQueue,
        connector_context: ConnectorContext,
        hardware: Hardware,
        redactor: Redactor,
        process: Process,
        table: LeaseTable,
    ) -> None:
        self.settings = settings
        self._queue = worker_queue
        self.drain = Shutdown()
        self._table = table
        self._failure: EmpTrioError | None = None
        self.rivals = Rivals(process.nonce, process.machine_id)
        self.leases = Leases(table, worker_queue, settings)
        self.first_words = FirstWords(worker_queue, settings, self.leases.renew_now)
        self.reaper = Reaper(worker_queue, settings, process.nonce, self.look_again)
        self._leaving = Leaving(worker_queue, settings, process.nonce)
        after = settings.adopt_orphans
        self.adopter = None if after is None else Adopter(worker_queue, settings, after, self.look_again)
        self._attempts: trio.Nursery | None = None
        states = {
            worker_id: SlotState(worker_id=worker_id, worker_type=worker.name, lane=worker.key)
            for worker in plan.workers
            for worker_id in worker_ids(worker, settings.machine_id)
        }
        self.supervisors = {
            name: Supervisor(service, connector_context, settings, redactor, self._services_changed)
            for name, service in plan.services.items()
        }
        self.offers = Availability(
            plan.workers, self.supervisors, connector_context.environment, hardware, settings.machine_id
        )
        self.registration = Registration(
            worker_queue,
            settings,
            list(states.values()),
            self.offers,
            this_build(connector_context.environment),
            gpus=hardware.gpus,
            statuses=lambda: [supervisor.status() for supervisor in self.supervisors.values()],
            process=process.nonce,
            shared=self.rivals.shared,
        )
        self.slots = Slots(
            states,
            plan.workers,
            self.supervisors,
            worker_queue,
            self.leases,
            self.first_words,
            self.registration,
            settings,
            redactor,
            requeued=self._requeued,
        )
        self.claimers = [
            Claimer(
                worker.key,
                [state.worker_id for state in states.values() if state.lane == worker.key],
                worker_queue,
                settings,
                capabilities=partial(self.offers.claim_argument, worker.key),
                start=self._start,
                first_words=self.first_words,
                table=table,
            )
            for worker in plan.workers
        ]

    # -- what others tell it

    def pushed(self) -> None:
        """Somebody else changed the queue."""
        self.first_words.pushed()
        self.look_again()

    def look_again(self) -> None:
        """The queue changed."""
        for claimer in self.claimers:
            claimer.look()

    def connected(self) -> None:
        """There is a new connection to Redis: changes before it were not pushed, leases could not be renewed."""
        self.reaper.hold_off()
        self.leases.renew_now()
        self.registration.again()
        self.pushed()

    def gone(self, leases: Mapping[LeaseRef, str]) -> None:
        """The keeper says that these leases are not held any more."""
        self.leases.gone(leases)

    def others(self, found: Others) -> None:
        """The keeper says that another process has slots of ours, or had."""
        suspects, error = self.rivals.hear(found, leaving=self.drain.begun.is_set())
        self._table.suspect(suspects)
        if error is not None:
            log.error("machine.id_in_use", error=error.message)
            self.fail(error)

    def fail(self, error: EmpTrioError) -> None:
        """Hand all jobs back, and end with this error."""
        self._failure = self._failure or error
        self.drain.stop("it can't go on")
        self.drain.stop("at once")

    def _requeued(self) -> None:
        """A job went back by our own hand, which Redis does not push to us."""
        self.reaper.look_sooner()
        self.look_again()

    def _services_changed(self) -> None:
        self.offers.changed()
        self.registration.again()
        self.look_again()

    # -- supervision (docs/how-it-works.md)

    async def run(self, bridge: Bridge, *, task_status: trio.TaskStatus[Machine]) -> None:
        """Run until drained. A crash in any of the machine's own tasks ends it, after handing jobs back.

        Raises:
            MachineIdInUse: another process has the same slots, and stays.
        """
        async with trio.open_nursery() as house:
            await house.start(self.drain.watch_signals)
            for supervisor in self.supervisors.values():
                house.start_soon(supervisor.run)
            house.start_soon(self.leases.watch)
            house.start_soon(self.leases.expire)
            house.start_soon(self.leases.publish_progress)
            house.start_soon(self.first_words.run)
            house.start_soon(self._listen, bridge)
            house.start_soon(self.reaper.run)
            house.start_soon(self.slots.finish_late)
            if self.adopter is not None:
                house.start_soon(self.adopter.run)
            with trio.move_on_after(_FIRST_LOOK):  # so that slots are registered with the services they have
                for supervisor in self.supervisors.values():
                    await supervisor.looked_at.wait()
            house.start_soon(self.registration.run)
            house.start_soon(self.registration.tell_moves)
            try:
                await first_of(self.registration.registered.wait, self.drain.begun.wait)
                if self.registration.registered.is_set():
                    self._table.introduce([slot for claimer in self.claimers for slot in claimer.free])
                    slots = {claimer.name: len(claimer.free) for claimer in self.claimers}
                    log.info("machine.ready", machine=self.settings.machine_id, slots=slots)
                task_status.started(self)
                async with trio.open_nursery() as self._attempts:
                    try:
                        await self._claim_until_drained()
                    finally:
                        self.slots.limit_settle_time()
            finally:
                await self._leave()
            house.cancel_scope.cancel(reason="the machine has drained")
        log.info("machine.stopped", machine=self.settings.machine_id)
        if self._failure is not None:
            raise self._failure

    async def _claim_until_drained(self) -> None:
        """Claim jobs until the machine is to stop; then wait for those that run, and stop the rest."""
        stages = self.settings.stages
        async with trio.open_nursery() as claiming:
            for claimer in self.claimers:
                claiming.start_soon(claimer.run)
            await self.drain.begun.wait()
            log.info("machine.draining", jobs=len(self.leases), seconds=self.settings.drain)
            end = trio.current_time() + self.settings.drain
            self._table.leave()
            self.slots.close()
            for claimer in self.claimers:
                claimer.stop()
            claiming.cancel_scope.deadline = min(end, trio.current_time() + stages.settle)
        with trio.CancelScope(deadline=end):
            await first_of(self.leases.wait_idle, self.drain.now.wait)
        self.leases.end_all()

    async def _leave(self) -> None:
        """Store the outcomes that Redis has not taken yet, and take the slots out of the fleet's lists."""
        with trio.move_on_after(self.settings.stages.settle, shield=True):
            await first_of(self.leases.wait_idle, self.slots.finish_late)
        self.reaper.stop()
        with trio.move_on_after(self.settings.stages.settle, shield=True) as scope:
            try:
                await self.registration.deregister(self.drain.reason)
                await self._leaving.farewell()
            except EmpTrioError as error:
                log.warning("machine.not_deregistered", error=error.message)
        if scope.cancelled_caught:
            log.warning("machine.not_deregistered", error="Redis did not answer in time")
        if self._failure is not None:
            return
        try:
            await first_of(self._leaving.outstay, self.drain.now.wait)
        finally:
            await self._leaving.hand_over()

    async def _listen(self, bridge: Bridge) -> None:
        """Hear of cancelled jobs, and of announced ones, which wake where the server pushes no changes of the queue."""

        def wanted(channel: str, message: bytes) -> bool:
            if channel != "job_submitted":
                return True
            self.first_words.heard(message)
            self.first_words.tracking = bridge.tracking
            return not bridge.tracking

        self.first_words.tracking = bridge.tracking
        async with bridge.subscribe("cancel_job", "job_submitted", wanted=wanted) as heard:
            async for item in heard:
                if isinstance(item, Gap):
                    self.leases.renew_now()  # jobs may have been cancelled meanwhile
                    self.look_again()
                elif item[0] == "cancel_job":
                    job_id = messages.cancelled_job(item[1])
                    if job_id is not None:
                        self.leases.cancel(job_id)
                else:
                    self.look_again()

    def _start(self, claimer: Claimer, claim: Claim, expires: float) -> None:
        assert self._attempts is not None
        self._attempts.start_soon(self.slots.run, claimer, claim, expires)


def worker_ids(worker: WorkerPlan, machine_id: str) -> list[str]:
    """Ids of a worker type's slots: ``{machine}-worker-{type}-{n}``, or the one id it was given."""
    if worker.worker_id is not None:
        return [worker.worker_id]
    return [f"{machine_id}-worker-{worker.name}-{number}" for number in worker.numbers]


async def run_machine(
    plan: Plan,
    settings: WorkerSettings,
    redis: RedisSettings,
    storage: StorageSettings,
    *,
    environment: Mapping[str, str],
    hardware: Hardware,
    redactor: Redactor,
    open_keeper: OpenKeeper | None = None,
    task_status: trio.TaskStatus[Machine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a machine until it is told to stop (a signal, or ``Machine.drain.stop``) and has drained.

    Cancellation hands the running jobs back at once.

    Args:
        plan: what to run, from :func:`emp_trio.mapping.plan`.
        environment: for capabilities.
        redactor: knows the secrets of settings, storage and Redis.
        open_keeper: renews the leases; by default a thread with a connection of its own.

    Raises:
        ConfigError: Redis refuses the login or is too old.
        MachineIdInUse: another live process has slots of the same ids, and stays.
        NotSent: Redis can't be reached.
    """
    machines: list[Machine] = []
    running = trio.CancelScope()
    keeper = open_keeper or partial(open_thread_keeper, redis, limit=settings.lease_margin, where=where)

    def tell(what: str) -> None:
        for machine in machines:
            machine.pushed() if what == "pending" else machine.connected()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, running)
            with trio.CancelScope() as shelter:
                async with (
                    open_asset_saver(storage) as assets,
                    open_bridge(
                        redis, on_pending=lambda: tell("pending"), on_connect=lambda: tell("connected")
                    ) as bridge,
                ):
                    shelter.shield = True  # the connection outlives the jobs that are handed back by it
                    with running:
                        worker_queue = WorkerQueue(bridge)
                        await worker_queue.retry_until_accepted(lambda: library.ensure(bridge), patience=redis.patience)
                        connector_context = ConnectorContext(assets=assets, environment=environment)
                        process = _this_process(settings)
                        table = LeaseTable(trio.current_time())
                        machine = Machine(
                            plan, settings, worker_queue, connector_context, hardware, redactor, process, table
                        )
                        async with keeper(table, process, _keep(settings), machine):
                            machines.append(machine)
                            await machine.run(bridge, task_status=task_status)
            nursery.cancel_scope.cancel(reason="the machine has stopped")
    except ExceptionGroup as group:
        raise leading_error(group) from group


async def _pass_on(scope: trio.CancelScope) -> None:
    """Cancel ``scope`` once this task is cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        scope.cancel(reason="run_machine was cancelled")


def _this_process(settings: WorkerSettings) -> Process:
    return Process(
        nonce=secrets.token_hex(8),
        machine_id=settings.machine_id,
        where=f"{socket.gethostname()}, process {os.getpid()}",
        take_over=settings.take_over,
    )


def _keep(settings: WorkerSettings) -> KeepSettings:
    return KeepSettings(
        lease=settings.lease,
        renew_every=settings.renew_every,
        alive_every=min(settings.renew_every, settings.beat_every),
        standstill=settings.standstill,
    )
