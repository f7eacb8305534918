"""One claimer per worker type: waits for a free slot and a reason to look, then claims for all free slots at once."""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable

import structlog
import trio

from emp_trio.errors import EmpTrioError, OutcomeUnknown
from emp_trio.queue.verbs import Claim, Claims, Verbs
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.signals import Signal

log = structlog.get_logger("emp_trio.claimer")

_LONGEST_SPREAD = 0.01  # seconds; how far machines that race for the same jobs draw apart
_PAUSE = 0.25  # seconds before a claim that Redis did not take is made again


class Claimer:
    """The free slots of one worker type.

    Args:
        slots: worker ids of the type's slots.
        capabilities: the type's capabilities JSON as of now, or None while none of its services is usable.
        start: takes a claimed job and the Trio time at which its lease ends.
        give_back: hands a claimed job back that nobody waits for any more.
    """

    def __init__(
        self,
        name: str,
        slots: list[str],
        verbs: Verbs,
        settings: WorkerSettings,
        *,
        capabilities: Callable[[], bytes | None],
        start: Callable[[Claimer, Claim, float], None],
        give_back: Callable[[Claim], None],
    ) -> None:
        self.name = name
        self.free = deque(slots)
        self._verbs = verbs
        self._settings = settings
        self._capabilities = capabilities
        self._start = start
        self._give_back = give_back
        self._wake = Signal()
        self._dry = False  # the last look went through the whole queue and left slots free
        self._lost_races = 0

    def look(self) -> None:
        """Something changed in the queue, or in what this type can do."""
        self._dry = False
        if self.free:
            self._wake.set()

    def put_back(self, worker_id: str) -> None:
        """A slot is free again."""
        self.free.append(worker_id)
        if not self._dry:
            self._wake.set()

    async def run(self) -> None:
        """Claim until cancelled; a claim that is under way then is handed back."""
        rank = 0
        while True:
            if rank == 0:
                pushed = await self._wake.wait(self._settings.poll_every * random.uniform(0.75, 1.25))
                if pushed and self._lost_races:
                    await trio.sleep(random.uniform(0, min(_LONGEST_SPREAD, 0.001 * 2**self._lost_races)))
            capabilities = self._capabilities()
            if not self.free or capabilities is None:
                rank = 0
                continue
            self._dry = True  # unless somebody says otherwise while the claim is under way
            asked, began = len(self.free), trio.current_time()
            claims = await self._claim(capabilities, rank)
            if claims.next_rank is not None:
                # A long queue of jobs for others: at most a tenth of Redis' time goes into looking through it.
                await trio.sleep(9 * (trio.current_time() - began))
            rank = claims.next_rank or 0
            for job_id, why in claims.dropped:
                log.warning("queue.dropped", job=job_id, why=why)
            if claims.jobs:
                self._lost_races = 0
            else:
                self._lost_races = min(self._lost_races + 1, 4)
            if len(claims.jobs) >= asked:  # as many as there were slots: there may be more
                rank, self._dry = 0, False
                if self.free:
                    self._wake.set()

    async def _claim(self, capabilities: bytes, rank: int) -> Claims:
        """Claim for all free slots. The slots that got a job are no longer free; its start is on its way."""
        nonce = secrets.token_hex(8)
        taken = list(self.free)
        slots = [(worker_id, f"{nonce}-{number}") for number, worker_id in enumerate(taken)]
        repeated = False
        while True:
            sent = trio.current_time()
            try:
                claims = await self._verbs.claim(
                    capabilities,
                    self._settings.machine_id,
                    slots,
                    lease=self._settings.lease,
                    rank=rank,
                    repeated=repeated,
                    on_orphan=self._orphaned,
                )
            except EmpTrioError as error:
                repeated = repeated or isinstance(error, OutcomeUnknown)
                log.warning("claim.failed", type=self.name, error=error.message)
                await trio.sleep(_PAUSE * random.uniform(0.5, 1.5))
                continue
            for claim in claims.jobs:
                self.free.remove(claim.worker_id)
                self._start(self, claim, sent + self._settings.lease)
            return claims

    def _orphaned(self, claims: Claims) -> None:
        for claim in claims.jobs:
            self._give_back(claim)
