"""One claimer per worker type: waits for a free slot and a reason to look, then claims what its policy says."""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from emp_trio.errors import EmpTrioError, OutcomeUnknown
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.settlement import released
from emp_trio.queue.worker_queue import Claim, Claims, LeaseRef
from emp_trio.worker.availability import Availability
from emp_trio.worker.claim_policy import Batch, ClaimPolicy
from emp_trio.worker.context import MachineContext
from emp_trio.worker.fleet_events import SlotState
from emp_trio.worker.observer import JobClaimed
from emp_trio.worker.start_events import DeferredStart, StartEvents
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.claimer")

_PAUSE = 0.25  # seconds before a claim that Redis did not take is made again


class ClaimedJob(msgspec.Struct, frozen=True):
    """A job that this machine has, and the slot that it is to run in.

    Attributes:
        claim: the job as it was claimed.
        lease: its lease.
        attempt: number of the attempt.
        slot: where it runs.
        at: Trio time at which the claim was answered.
        expires: Trio time at which the lease ends unless it is renewed.
        start: holds back its first events; None where they are published already.
        claimer: takes the slot back.
    """

    claim: Claim
    lease: LeaseRef
    attempt: int
    slot: SlotState
    at: float
    expires: float
    start: DeferredStart | None
    claimer: Claimer


class Claimer:
    """Claims for the free slots of one worker type.

    Args:
        lane: what the type's plan is found by (:attr:`~emp_trio.mapping.WorkerPlan.key`).
        slots: all slots of the type.
        availability: what the type can do as of now.
        table: holds the leases of claimed jobs.
        start_events: marks them as running in Redis.

    Attributes:
        free: the slots without a job.
        policy: decides what to claim.
        failing: whether Redis did not take the last claim.
    """

    def __init__(
        self,
        lane: str,
        slots: Sequence[SlotState],
        context: MachineContext,
        availability: Availability,
        table: LeaseTable,
        start_events: StartEvents,
    ) -> None:
        self.lane = lane
        self.free = deque(slots)
        self.policy = ClaimPolicy(len(slots))
        self.failing = False
        self._settings = context.settings
        self._queue = context.queue
        self._observers = context.observers
        self._availability = availability
        self._table = table
        self._start_events = start_events
        self._stopped = False
        self._wake = Wakeup()

    def queue_changed(self) -> None:
        """Something changed in the queue, or in what this type can do."""
        self.policy.notify()
        if self.free:
            self._wake.set()

    def put_back(self, slot: SlotState) -> None:
        """A slot is free again."""
        self.free.append(slot)
        if not self.policy.queue_empty:
            self._wake.set()

    def stop(self) -> None:
        """Look no more; :meth:`run` ends when the claims under way have been answered."""
        self._stopped = True
        self._wake.set()

    async def run(self, start: Callable[[ClaimedJob], None]) -> None:
        """Claim until told to stop. What a cancelled claim brings is handed back.

        Args:
            start: has a claimed job run.
        """
        async with trio.open_nursery() as claims:
            while not self._stopped:
                await self._wake.wait(self._settings.poll_every * random.uniform(0.75, 1.25))
                if spread := self.policy.woken():
                    await trio.sleep(random.uniform(0, spread))
                while not self._stopped and (capabilities := self._availability.claim_argument(self.lane)) is not None:
                    batch = self.policy.next_batch(len(self.free))
                    if batch is None:
                        break
                    if batch.concurrent:
                        claims.start_soon(self._claim_batch, batch, self._take(batch), capabilities, start)
                    else:  # without a task of its own a single job is picked up sooner
                        await self._claim_batch(batch, self._take(batch), capabilities, start)
                        await trio.lowlevel.checkpoint()  # what was claimed starts before the next look
                        break

    def _take(self, batch: Batch) -> dict[str, SlotState]:
        """The slots to claim for, by worker id; they are not free meanwhile."""
        slots = [self.free.popleft() for _ in range(batch.size)]
        return {slot.worker_id: slot for slot in slots}

    async def _claim_batch(
        self, batch: Batch, slots: dict[str, SlotState], capabilities: bytes, start: Callable[[ClaimedJob], None]
    ) -> None:
        """Make one claim and have its jobs run; slots that got none are free again."""
        began = trio.current_time()
        try:
            jobs, claims = await self._claim(batch, slots, capabilities)
            for job in jobs:
                del slots[job.slot.worker_id]
                start(job)
            for job_id, why in claims.dropped:
                log.warning("queue.dropped", job=job_id, why=why)
            pause = self.policy.answered(
                batch, jobs=len(jobs), next_rank=claims.next_rank, seconds=trio.current_time() - began
            )
            if pause:
                await trio.sleep(pause)
        finally:
            self.policy.ended()
            self.free.extend(slots.values())
            if self.free and not self.policy.queue_empty:
                self._wake.set()

    async def _claim(
        self, batch: Batch, slots: dict[str, SlotState], capabilities: bytes
    ) -> tuple[list[ClaimedJob], Claims]:
        """Claim jobs for slots, and hold their leases from the moment on in which they are known."""
        nonce = f"{self._table.process}.{secrets.token_hex(4)}"
        asked = [(worker_id, f"{nonce}-{number}") for number, worker_id in enumerate(slots)]
        self._table.claiming(nonce, asked)
        try:
            claims, expires = await self._ask(batch, asked, capabilities)
        finally:
            kept = self._table.claimed(nonce)
        expires, now = max(expires, kept), trio.current_time()
        leases = [LeaseRef(claim.job_id, claim.token) for claim in claims.jobs]
        for lease in leases:  # before any of them is begun, which might block the loop
            self._table.hold(lease, expires)
        begun = claims.jobs and not self._stopped
        deferred = self._start_events.begin(claims, leases) if begun else {}
        jobs = [
            ClaimedJob(
                claim, lease, claim.attempt, slots[claim.worker_id], now, expires, deferred.get(claim.job_id), self
            )
            for claim, lease in zip(claims.jobs, leases, strict=True)
        ]
        if tell := self._observers.job_claimed:
            for job in jobs:
                size = sum(map(len, job.claim.fields.values()))
                tell(JobClaimed(job_id=job.claim.job_id, slot=job.slot.worker_id, attempt=job.attempt, size=size))
        return jobs, claims

    async def _ask(self, batch: Batch, asked: list[tuple[str, str]], capabilities: bytes) -> tuple[Claims, float]:
        """Make one claim until Redis answers. Returns the answer, and the Trio time at which its leases end."""
        repeated = False
        while True:
            sent = trio.current_time()
            try:
                claims = await self._queue.claim(
                    capabilities,
                    self._settings.machine_id,
                    asked,
                    lease=self._settings.lease,
                    rank=batch.rank,
                    repeated=repeated,
                    quiet=True,
                    on_orphan=self._hand_back,
                )
            except EmpTrioError as error:
                repeated = repeated or isinstance(error, OutcomeUnknown)
                if self._stopped and not repeated:
                    return Claims(jobs=()), sent
                if not self.failing:  # once per trouble, however long it takes
                    log.warning("claim.failed", type=self.lane, error=error.message)
                self.failing = True
                await trio.sleep(_PAUSE * random.uniform(0.5, 1.5))
            else:
                self.failing = False
                return claims, sent + self._settings.lease

    def _hand_back(self, claims: Claims) -> None:
        """Jobs that were claimed for a machine that is being cancelled; if it is too late for that, their leases run
        out."""
        for claim in claims.jobs:
            lease, machine = LeaseRef(claim.job_id, claim.token), self._settings.machine_id
            self._queue.settle_soon(lease, machine, released(), lambda stored: None, unified=self._settings.unified)
