"""One machine: every slot of one process, and the tasks that keep them honest (see docs/how-it-works.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.saver import open_asset_saver
from emp_trio.errors import EmpTrioError, InvalidJob, ServiceError, failure_of, leading_error
from emp_trio.jobs import Job
from emp_trio.mapping import Plan, WorkerPlan
from emp_trio.queue import library, messages
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.messages import Identity, Settlement
from emp_trio.queue.port import Gap, RedisSettings
from emp_trio.queue.verbs import Claim, LeaseRef, Verbs
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector
from emp_trio.toolbox import Toolbox
from emp_trio.worker.attempt import Attempt
from emp_trio.worker.capabilities import Hardware, capabilities
from emp_trio.worker.claimer import Claimer
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.drain import Drain
from emp_trio.worker.leases import Leases
from emp_trio.worker.reaper import Reaper
from emp_trio.worker.registration import Registration, SlotState, slot_capabilities
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.slot import run_attempt, unreadable

log = structlog.get_logger("emp_trio.machine")


class Machine:
    """The parts of one machine and the life of its slots; run it with :func:`run_machine`."""

    def __init__(
        self,
        plan: Plan,
        settings: WorkerSettings,
        verbs: Verbs,
        toolbox: Toolbox,
        hardware: Hardware,
        redactor: Redactor,
    ) -> None:
        self.settings = settings
        self.verbs = verbs
        self.drain = Drain()
        self.leases = Leases(verbs, settings)
        self.reaper = Reaper(verbs, settings, self.look_again)
        self._environment = toolbox.environment
        self._hardware = hardware
        self._redactor = redactor
        self._types = {worker.name: worker for worker in plan.workers}
        self._slots = {
            worker_id: SlotState(worker_id=worker_id, worker_type=worker.name)
            for worker in plan.workers
            for worker_id in worker_ids(worker, settings.machine_id)
        }
        self.supervisors = {
            name: Supervisor(service, toolbox, settings, redactor, self._services_changed)
            for name, service in plan.services.items()
        }
        self.claimers = [self._claimer(worker) for worker in plan.workers]
        self.registration = Registration(
            verbs,
            settings,
            list(self._slots.values()),
            capabilities=self._capabilities,
            statuses=lambda: [supervisor.status() for supervisor in self.supervisors.values()],
        )
        self._attempts: trio.Nursery | None = None
        self._settling: set[trio.CancelScope] = set()

    # -- what others tell it

    def look_again(self) -> None:
        """The queue changed."""
        for claimer in self.claimers:
            claimer.look()

    def connected(self) -> None:
        """A connection to Redis stands, a new one perhaps: changes before it were not pushed."""
        self.look_again()
        self.registration.again()
        self.reaper.look_sooner()

    def _services_changed(self) -> None:
        self.look_again()
        self.registration.again()

    # -- supervision (design: section 6)

    async def run(self, bridge: Bridge, *, task_status: trio.TaskStatus[Machine]) -> None:
        """Run until drained. A crash in any of the machine's own tasks ends it, after handing jobs back."""
        async with trio.open_nursery() as house:
            await house.start(self.drain.watch_signals)
            for supervisor in self.supervisors.values():
                house.start_soon(supervisor.run)
            house.start_soon(self.leases.renew)
            house.start_soon(self.leases.publish_progress)
            house.start_soon(self._listen, bridge)
            house.start_soon(self.reaper.run)
            await house.start(self.registration.run)
            log.info("machine.ready", machine=self.settings.machine_id, slots=len(self._slots), types=list(self._types))
            task_status.started(self)
            async with trio.open_nursery() as attempts:
                self._attempts = attempts
                async with trio.open_nursery() as claiming:
                    for claimer in self.claimers:
                        claiming.start_soon(claimer.run)
                    await self.drain.begun.wait()
                    claiming.cancel_scope.cancel(reason="drain")
                await self._drain()
            try:
                with trio.move_on_after(self.settings.stages.settle, shield=True):
                    await self.registration.leave(self.drain.reason)
            except EmpTrioError as error:
                log.warning("machine.not_deregistered", error=error.message)
            house.cancel_scope.cancel(reason="the machine has drained")
        log.info("machine.stopped", machine=self.settings.machine_id)

    async def _drain(self) -> None:
        log.info("machine.draining", jobs=len(self.leases), seconds=self.settings.drain)
        with trio.move_on_after(self.settings.drain):
            async with trio.open_nursery() as waiting:

                async def hurry() -> None:
                    await self.drain.now.wait()
                    waiting.cancel_scope.cancel(reason="second signal")

                waiting.start_soon(hurry)
                await self.leases.wait_idle()
                waiting.cancel_scope.cancel(reason="drained")
        self.leases.end_all("drain")
        for scope in self._settling:
            scope.deadline = min(scope.deadline, trio.current_time() + self.settings.stages.settle)

    async def _listen(self, bridge: Bridge) -> None:
        """Hear of cancelled jobs, and of new ones where the server does not push changes of jobs:pending."""
        channels = ["cancel_job"] if bridge.tracking else ["cancel_job", "job_submitted"]
        async with bridge.subscribe(*channels) as heard:
            async for item in heard:
                if isinstance(item, Gap):
                    await self.leases.renew_once()  # its answer names the jobs that were cancelled meanwhile
                    self.look_again()
                elif item[0] == "cancel_job":
                    job_id = messages.cancelled_job(item[1])
                    if job_id is not None:
                        self.leases.cancel(job_id)
                else:
                    self.look_again()

    # -- slots

    def _claimer(self, worker: WorkerPlan) -> Claimer:
        def current() -> bytes | None:
            found = self._capabilities(worker.name)
            return slot_capabilities(found) if found["services"] else None

        ids = [slot.worker_id for slot in self._slots.values() if slot.worker_type == worker.name]
        return Claimer(
            worker.name,
            ids,
            self.verbs,
            self.settings,
            capabilities=current,
            start=self._start,
            give_back=self._give_back,
            refused=self.leases.lose,
        )

    def _capabilities(self, worker_type: str) -> Mapping[str, Any]:
        """Only job types whose connector can be used now are offered (service mapping reference, 8.2)."""
        routes = self._types[worker_type].routes
        usable = {t: self.supervisors[s.worker_service] for t, s in routes.items()}
        usable = {t: s for t, s in usable.items() if s.usable}
        return capabilities(
            self._environment,
            self._hardware,
            machine_id=self.settings.machine_id,
            services=list(usable),
            models={s.plan.connector.service_type: s.models for s in usable.values()},
        )

    def _start(self, claimer: Claimer, claim: Claim, expires: float) -> None:
        assert self._attempts is not None
        self._attempts.start_soon(self._run_slot, claimer, claim, expires)

    def _give_back(self, claim: Claim) -> None:
        """Hand back a job whose claim nobody waited for any more; if this fails its lease runs out."""
        if self._attempts is not None:
            lease = LeaseRef(claim.job_id, claim.token)
            self._attempts.start_soon(self._settle, lease, messages.released())

    async def _run_slot(self, claimer: Claimer, claim: Claim, expires: float) -> None:
        slot, lease = self._slots[claim.worker_id], LeaseRef(claim.job_id, claim.token)
        who = Identity(worker_id=claim.worker_id, machine_id=self.settings.machine_id)
        structlog.contextvars.bind_contextvars(job=claim.job_id, slot=claim.worker_id)
        slot.current_job_id = claim.job_id
        attempt: Attempt | None = None
        settlement: Settlement | None = messages.released()  # what a cancelled machine leaves behind
        try:
            try:
                job = messages.read_job(claim.job_id, claim.attempt, claim.fields)
            except InvalidJob as error:
                settlement = unreadable(claim.job_id, claim.attempt, claim.fields, error, who)
            else:
                attempt = self._attempt(job, lease, claim.worker_id, expires)
                self.leases.add(attempt)
                service = self._types[claimer.name].routes.get(job.type)
                settlement = await run_attempt(
                    attempt, lambda: self._connector(job.type, claimer.name), who, self._redactor
                )
                failure = settlement.failure if settlement else None
                if failure is not None and service is not None:
                    self.supervisors[service.worker_service].failed(failure)
        finally:
            if settlement is not None:
                await self._settle(lease, settlement)
                slot.completed += settlement.kind == "completed"
                slot.failed += settlement.kind == "failed"
            else:
                log.info("job.stopped", why=attempt.ending if attempt else None)
            if attempt is not None:
                self.leases.drop(attempt)
            slot.current_job_id = None
            claimer.put_back(claim.worker_id)

    def _attempt(self, job: Job, lease: LeaseRef, worker_id: str, expires: float) -> Attempt:
        seconds = self.settings.job_timeout
        if job.deadline is not None:
            seconds = min(seconds, job.deadline - time.time())
        return Attempt(
            job,
            lease,
            worker_id,
            expires=expires,
            margin=self.settings.lease_margin,
            deadline=trio.current_time() + max(0.0, seconds),
            limits=self.settings.stages,
            changed=self.leases.has_progress,
            store=lambda ref, checkpoint: self.verbs.surely(lambda: self.verbs.remember(ref, checkpoint)),
            redactor=self._redactor,
        )

    def _connector(self, job_type: str, worker_type: str) -> Connector:
        service = self._types[worker_type].routes.get(job_type)
        if service is None:
            raise ServiceError(
                f"no connector for the job type {job_type!r} in worker type {worker_type!r}",
                type="validation_error",
                reason="unsupported_operation",
                retry=False,
            )
        return self.supervisors[service.worker_service].connector()

    async def _settle(self, lease: LeaseRef, settlement: Settlement) -> None:
        """Store an outcome, also while the machine is being cancelled; Redis may be away for a while."""
        limit = self.settings.stages.settle + (0 if self.drain.begun.is_set() else self.settings.settle_patience)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope:
            self._settling.add(scope)
            try:
                held = await self.verbs.surely(
                    lambda: self.verbs.settle(
                        lease, self.settings.machine_id, settlement, unified=self.settings.unified
                    )
                )
                _log_outcome(settlement, held)
            except EmpTrioError as error:
                message = self._redactor.text(failure_of(error).message)
                log.error("job.not_settled", error=message, hint="its lease runs out and it is tried again")
            finally:
                self._settling.discard(scope)
        if scope.cancelled_caught:
            log.error("job.not_settled", error="Redis did not take the outcome in time", kind=settlement.kind)
        if settlement.kind in ("retry", "release"):
            self.reaper.look_sooner()
            self.look_again()


def _log_outcome(settlement: Settlement, held: bool) -> None:
    failure = settlement.failure
    if not held:
        log.warning("job.lost", kind=settlement.kind, why="the lease was gone when the attempt ended")
    elif failure is None:
        log.info(f"job.{settlement.kind}" if settlement.kind != "release" else "job.released")
    else:
        event = "job.failed" if settlement.kind == "failed" else "job.retry"
        log.warning(event, type=failure.type, reason=failure.reason, error=failure.message, delay=settlement.delay)


def worker_ids(worker: WorkerPlan, machine_id: str) -> list[str]:
    """Ids of a worker type's slots: ``{machine}-worker-{type}-{n}``, or the one id it was given."""
    if worker.worker_id is not None:
        return [worker.worker_id]
    return [f"{machine_id}-worker-{worker.name}-{number}" for number in range(worker.count)]


async def run_machine(
    plan: Plan,
    settings: WorkerSettings,
    redis: RedisSettings,
    storage: StorageSettings,
    *,
    environment: Mapping[str, str],
    hardware: Hardware,
    redactor: Redactor,
    task_status: trio.TaskStatus[Machine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a machine until it is told to stop (a signal, or ``Machine.drain.stop``) and has drained.

    Cancellation hands the running jobs back at once.

    Args:
        plan: what to run, from :func:`emp_trio.mapping.plan`.
        environment: for capabilities.
        redactor: knows the secrets of settings, storage and Redis.

    Raises:
        ConfigError: Redis refuses the login or is too old.
        NotSent: Redis can't be reached.
    """
    machines: list[Machine] = []

    def tell(what: str) -> None:
        for machine in machines:
            machine.look_again() if what == "pending" else machine.connected()

    try:
        async with (
            open_asset_saver(storage) as assets,
            open_bridge(redis, on_pending=lambda: tell("pending"), on_connect=lambda: tell("connected")) as bridge,
        ):
            await library.ensure(bridge)
            toolbox = Toolbox(assets=assets, environment=environment)
            machine = Machine(plan, settings, Verbs(bridge), toolbox, hardware, redactor)
            machines.append(machine)
            await machine.run(bridge, task_status=task_status)
    except ExceptionGroup as group:
        raise leading_error(group) from group
