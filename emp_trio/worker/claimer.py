"""One claimer per worker type: waits for a free slot and a reason to look, then claims for all free slots at once."""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable

import structlog
import trio

from emp_trio.errors import EmpTrioError, OutcomeUnknown
from emp_trio.queue.lease_table import LeaseTable
from emp_trio.queue.settlement import released
from emp_trio.queue.worker_queue import Claim, Claims, LeaseRef, WorkerQueue
from emp_trio.worker.first_words import FirstWords
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.wakeup import Wakeup

log = structlog.get_logger("emp_trio.claimer")

_LONGEST_SPREAD = 0.01  # seconds; how far machines that race for the same jobs draw apart
_FIRST_REACH = 8  # slots that a first look claims for: most of the time it is about one job
_PAUSE = 0.25  # seconds before a claim that Redis did not take is made again


class Claimer:
    """The free slots of one worker type.

    While jobs are plenty two claims are under way at a time, each for a part of the slots, so that Redis and this
    process work side by side instead of in turn.

    Args:
        slots: worker ids of the type's slots.
        capabilities: the type's capabilities JSON as of now, or None while none of its services is usable.
        start: takes a claimed job and the Trio time at which its lease ends.
        first_words: starts them in Redis.
        table: holds their leases.
    """

    def __init__(
        self,
        name: str,
        slots: list[str],
        worker_queue: WorkerQueue,
        settings: WorkerSettings,
        *,
        capabilities: Callable[[], bytes | None],
        start: Callable[[Claimer, Claim, float], None],
        first_words: FirstWords,
        table: LeaseTable,
    ) -> None:
        self.name = name
        self.free = deque(slots)
        self._share = (len(slots) + 1) // 2
        self._queue = worker_queue
        self._settings = settings
        self._capabilities = capabilities
        self._start = start
        self._first_words = first_words
        self._table = table
        self._stopped = False
        self._failing = False
        self._wake = Wakeup()
        self._dry = False  # the last look went through the whole queue and left slots free
        self._plenty = False  # the last claim got a job for each of its slots
        self._changes = 0
        self._told = False  # somebody has said that the queue changed
        self._flights = 0
        self._rank = 0
        self._lost_races = 0

    def look(self) -> None:
        """Something changed in the queue, or in what this type can do."""
        self._dry = False
        self._changes += 1
        self._told = True
        if self.free:
            self._wake.set()

    def put_back(self, worker_id: str) -> None:
        """A slot is free again."""
        self.free.append(worker_id)
        if not self._dry:
            self._wake.set()

    def stop(self) -> None:
        """Look no more; :meth:`run` ends when the claims under way have been answered."""
        self._stopped = True
        self._wake.set()

    async def run(self) -> None:
        """Claim until told to stop. What a cancelled claim brings is handed back."""
        async with trio.open_nursery() as flights:
            while not self._stopped:
                told = await self._something_to_look_for()
                while self.free and self._flights < (2 if self._plenty else 1) and not self._stopped:
                    capabilities = self._capabilities()
                    if capabilities is None:
                        break
                    most = self._share if self._plenty else _FIRST_REACH
                    slots = [self.free.popleft() for _ in range(min(most, len(self.free)))]
                    self._flights += 1
                    if self._plenty:
                        flights.start_soon(self._fly, slots, capabilities, told)
                    else:  # without a task of its own a single job is picked up sooner
                        await self._fly(slots, capabilities, told)
                        await trio.lowlevel.checkpoint()  # what was claimed starts before the next look
                        break

    async def _something_to_look_for(self) -> bool:
        """Wait for a reason to look; returns whether it is that somebody else changed the queue."""
        await self._wake.wait(self._settings.poll_every * random.uniform(0.75, 1.25))
        told, self._told = self._told, False
        if told and self._lost_races > 1:
            await trio.sleep(random.uniform(0, min(_LONGEST_SPREAD, 0.0005 * 2**self._lost_races)))
        return told

    async def _fly(self, slots: list[str], capabilities: bytes, told: bool) -> None:
        """One claim for some slots; those that got no job are free again. ``told``: somebody else changed the queue."""
        began, changes = trio.current_time(), self._changes
        try:
            claims = await self._claim(slots, capabilities)
            for job_id, why in claims.dropped:
                log.warning("queue.dropped", job=job_id, why=why)
            self._plenty = bool(claims.jobs) and not slots  # those with a job are gone from the list
            if claims.jobs:
                self._lost_races = 0
            elif told:
                self._lost_races = min(self._lost_races + 1, 4)
            more = claims.next_rank is not None
            self._rank = 0 if self._plenty else claims.next_rank or 0
            if more and not claims.jobs:
                # A long queue of jobs for others: at most a tenth of Redis' time goes into looking through it.
                await trio.sleep(9 * (trio.current_time() - began))
            # Dry until somebody says otherwise, which may have been while the claim was under way.
            self._dry = not self._plenty and not more and changes == self._changes
        finally:
            self._flights -= 1
            self.free.extend(slots)
            if self.free and not self._dry:
                self._wake.set()

    async def _claim(self, slots: list[str], capabilities: bytes) -> Claims:
        """Claim jobs for slots and have them started; the slots that got one are taken out of the list."""
        nonce = secrets.token_hex(8)
        asked = [(worker_id, f"{nonce}-{number}") for number, worker_id in enumerate(slots)]
        self._table.claiming(nonce, asked)
        try:
            claims, expires = await self._ask(asked, capabilities)
        finally:
            kept = self._table.claimed(nonce)
        for claim in claims.jobs:  # before any of them is begun, which might block the loop
            self._table.hold(LeaseRef(claim.job_id, claim.token), max(expires, kept))
        if claims.jobs and not self._stopped:
            self._first_words.begin(claims)
        for claim in claims.jobs:
            slots.remove(claim.worker_id)
            self._start(self, claim, max(expires, kept))
        return claims

    async def _ask(self, asked: list[tuple[str, str]], capabilities: bytes) -> tuple[Claims, float]:
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
                    rank=self._rank,
                    repeated=repeated,
                    quiet=True,
                    on_orphan=self._hand_back,
                )
            except EmpTrioError as error:
                repeated = repeated or isinstance(error, OutcomeUnknown)
                if self._stopped and not repeated:
                    return Claims(jobs=()), sent
                if not self._failing:  # once per trouble, however long it takes
                    log.warning("claim.failed", type=self.name, error=error.message)
                self._failing = True
                await trio.sleep(_PAUSE * random.uniform(0.5, 1.5))
            else:
                self._failing = False
                return claims, sent + self._settings.lease

    def _hand_back(self, claims: Claims) -> None:
        """Jobs that were claimed for a machine that is being cancelled; if it is too late for that, their leases run
        out."""
        for claim in claims.jobs:
            lease, machine = LeaseRef(claim.job_id, claim.token), self._settings.machine_id
            self._queue.settle_soon(lease, machine, released(), lambda stored: None, unified=self._settings.unified)
