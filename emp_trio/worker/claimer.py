"""Claimer of a worker type: wait for free slots and wake-ups, and claim as the policy decides."""

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

_PAUSE = 0.25  # seconds before a failed claim is retried


class ClaimedJob(msgspec.Struct, frozen=True):
    """A claimed job and its slot.

    Attributes:
        claim: the job, as claimed.
        lease: lease of the job.
        attempt: number of the attempt.
        slot: slot that runs it.
        at: Trio time of the reply to the claim.
        expires: Trio time at which the lease expires unless renewed.
        start: holds back its first events; None if they are published.
        claimer: claimer to return the slot to.
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
        lane: key of the type's plan (:attr:`~emp_trio.mapping.WorkerPlan.key`).
        slots: all slots of the type.
        availability: current capabilities.
        table: holds the leases of claimed jobs.
        start_events: marks claimed jobs as running in Redis.

    Attributes:
        free: slots without a job.
        policy: claim policy.
        failing: whether the last claim failed.
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
        """Wake the claimer, because the queue or the capabilities changed."""
        self.policy.notify()
        if self.free:
            self._wake.set()

    def put_back(self, slot: SlotState) -> None:
        """Return a free slot."""
        self.free.append(slot)
        if not self.policy.queue_empty:
            self._wake.set()

    def stop(self) -> None:
        """Stop claiming; :meth:`run` returns after the replies to claims in flight."""
        self._stopped = True
        self._wake.set()

    async def run(self, start: Callable[[ClaimedJob], None]) -> None:
        """Claim until :meth:`stop`. After cancellation, requeue the jobs of claims in flight.

        Args:
            start: called with each claimed job, to run it.
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
                    else:  # a single job starts sooner without a task
                        await self._claim_batch(batch, self._take(batch), capabilities, start)
                        await trio.lowlevel.checkpoint()  # claimed jobs start before the next claim
                        break

    def _take(self, batch: Batch) -> dict[str, SlotState]:
        """Take the slots to claim for from the free ones; return them by worker id."""
        slots = [self.free.popleft() for _ in range(batch.size)]
        return {slot.worker_id: slot for slot in slots}

    async def _claim_batch(
        self, batch: Batch, slots: dict[str, SlotState], capabilities: bytes, start: Callable[[ClaimedJob], None]
    ) -> None:
        """Make one claim, start its jobs, and free the slots without a job."""
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
        """Claim jobs for slots, and hold their leases from the reply on."""
        nonce = f"{self._table.process}.{secrets.token_hex(4)}"
        asked = [(worker_id, f"{nonce}-{number}") for number, worker_id in enumerate(slots)]
        self._table.claiming(nonce, asked)
        try:
            claims, expires = await self._ask(batch, asked, capabilities)
        finally:
            kept = self._table.claimed(nonce)
        expires, now = max(expires, kept), trio.current_time()
        leases = [LeaseRef(claim.job_id, claim.token) for claim in claims.jobs]
        for lease in leases:  # before any job starts, because it might block the loop
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
        """Send a claim until Redis replies. Return the reply, and the Trio time at which its leases expire."""
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
                if not self.failing:  # once per outage
                    log.warning("claim.failed", type=self.lane, error=error.message)
                self.failing = True
                await trio.sleep(_PAUSE * random.uniform(0.5, 1.5))
            else:
                self.failing = False
                return claims, sent + self._settings.lease

    def _hand_back(self, claims: Claims) -> None:
        """Requeue jobs claimed for a machine that is being cancelled; if that fails, their leases expire."""
        for claim in claims.jobs:
            lease, machine = LeaseRef(claim.job_id, claim.token), self._settings.machine_id
            self._queue.settle_soon(lease, machine, released(), lambda stored: None, unified=self._settings.unified)
