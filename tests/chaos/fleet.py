"""Machines of ours as real processes, each started again when it ends, and an account of all jobs they were given."""

from __future__ import annotations

import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import redis
import trio

from emp_trio.nursery import leading_error
from tests.chaos.rows import Row
from tests.chaos.server import Listener, listening
from tests.worker.processes import ROOT, WorkerProcess, open_worker
from tests.worker.support import HEAVY, client, eventually, submit

ACTORS = str(Path(__file__).with_name("actors.json"))
PATIENCE = 900.0 if HEAVY else 120.0  # seconds after which a job that has not ended counts as lost
LEASE = 15.0 if HEAVY else 1.5
"""Seconds: the long forms have the default settings, the short ones can't wait for so long."""
SETTLED = ("completed", "failed")
_SWEEP = 0.05  # seconds between two looks at what has ended


class Fleet:
    """Machines, jobs and what became of them; made by :func:`open_fleet`.

    Attributes:
        machines: the process that each machine is at present.
        jobs: the payload of each job that the server has accepted.
        hits: how often the process of each job was killed while the job was running.
        rng: what is drawn by chance comes from here.
    """

    def __init__(self, url: str, listener: Listener, nursery: trio.Nursery, rng: random.Random) -> None:
        self.url = url
        self.db = client(url)
        self.machines: dict[str, WorkerProcess] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.hits: defaultdict[str, int] = defaultdict(int)
        self.rng = rng
        self.originals: dict[str, trio.Process] = {}
        self._listener = listener
        self._nursery = nursery
        self._interrupted: list[tuple[str, float]] = []
        self._staying: set[str] = set()

    def submit(self, count: int, *, longest: float = 1.0, retries: bool = False, job_type: str = "unsteady") -> None:
        """Submit jobs that take up to ``longest`` seconds; with ``retries`` some fail, for a while or for good."""
        for _ in range(count):
            payload: dict[str, Any] = {"seconds": round(self.rng.uniform(0.02, longest), 3)}
            if retries:
                payload |= self.rng.choice([{}, {}, {}, {"fails": 1}, {"fails": 2}, {"bad": self.rng.random() < 0.3}])
            self.put(payload, job_type)

    def put(self, payload: dict[str, Any], job_type: str = "unsteady", **fields: Any) -> str:
        """Submit one job; its id."""
        job_id = submit(self.db, job_type, payload, **fields)
        self.jobs[job_id] = payload
        return job_id

    def forget(self) -> list[str]:
        """Take the jobs off the account that the server does not know any more; their ids."""
        pipe = self.db.pipeline(transaction=False)
        for job_id in self.jobs:
            pipe.exists(f"job:{job_id}")
        gone = [job_id for job_id, there in zip(self.jobs, pipe.execute(), strict=True) if not there]
        for job_id in gone:
            del self.jobs[job_id]
        return gone

    def begin_anew(self) -> None:
        """Take all jobs off the account; what comes is another row."""
        self.jobs.clear()
        self.hits.clear()
        self._interrupted.clear()
        self._listener.gaps = 0

    async def start(self, *names: str, slots: int = 4, words: str = "", url: str = "", **environment: str) -> None:
        """Start machines, and each again whenever it ends, until it is told to leave; returns when all are ready."""
        workers = words or f"unsteady:{slots}"
        env = {"EMP_TRIO_LEASE_SECONDS": f"{LEASE}"} | environment
        for name in names:
            self._staying.add(name)
            self._nursery.start_soon(self._keep, name, workers, url or self.url, env)
        for name in names:
            await eventually(lambda n=name: n in self.machines and self.machines[n].events("machine.ready"))

    async def _keep(self, name: str, workers: str, url: str, env: dict[str, str]) -> None:
        while name in self._staying:
            words = ("--mapping", ACTORS, "--workers", workers, "--machine-id", name, "--drain", "5")
            async with open_worker(url, *words, ready=False, **env) as worker:
                self.machines[name] = worker
                await worker.process.wait()

    async def until_ready(self, name: str, *, after: WorkerProcess) -> None:
        """Wait until a machine that left has been started again."""
        await eventually(lambda: self.machines[name] is not after and self.machines[name].events("machine.ready"))

    def ready(self) -> list[str]:
        """The machines that are up."""
        return [
            name
            for name, machine in self.machines.items()
            if machine.process.returncode is None and machine.events("machine.ready")
        ]

    async def kill(self, name: str) -> bool:
        """End a machine with SIGKILL and note whom that interrupts; not where it would be a job's third time, whose end
        is a dead letter. Whether it was ended."""
        process = self.machines[name].process
        if process.returncode is not None:
            return False
        process.send_signal(signal.SIGSTOP)
        held = self.held(name)
        running = [job_id for job_id, status in held.items() if status == "in_progress"]
        if any(self.hits[job_id] >= 2 for job_id in held):
            process.send_signal(signal.SIGCONT)
            return False
        process.kill()
        await process.wait()
        for job_id in running:
            self.hits[job_id] += 1
        self.interrupted(held)
        return True

    def interrupted(self, jobs: Iterable[str]) -> None:
        """Note that nobody works on these jobs from now on."""
        self._interrupted += [(job_id, monotonic()) for job_id in jobs]

    async def until_claimed_again(self, jobs: Iterable[str]) -> None:
        """Wait until jobs that were interrupted have been claimed since, or have ended."""
        since = {job_id: at for job_id, at in self._interrupted if job_id in jobs}
        await eventually(
            lambda: all(
                self._listener.ends[job_id] or self._listener.claims[job_id][-1][0] > at for job_id, at in since.items()
            )
        )

    def held(self, name: str) -> dict[str, str]:
        """The jobs a machine has, with their status."""
        self.db.ping()  # what the machine has sent by now is done when this is answered
        keys = list(self.db.scan_iter(f"jobs:active:{name}-worker-*", count=1000))
        ids = [job_id for key in keys for job_id in self.db.hkeys(key)]
        return {job_id: self.db.hget(f"job:{job_id}", "status") for job_id in ids}

    async def start_originals(self, *names: str) -> None:
        """Start workers of the fleet's other kind, each of which takes one job at a time."""
        for name in names:
            command = [sys.executable, "-m", "tests.chaos.original", self.url, name, "unsteady"]
            self.originals[name] = await self._nursery.start(partial(trio.run_process, command, check=False, cwd=ROOT))
        for name in names:
            await eventually(lambda n=name: self.db.exists(f"worker:{n}:heartbeat"))

    async def kill_original(self, name: str) -> list[str]:
        """End one of them with SIGKILL; what it had is lost, and taken off the account: its ids."""
        process = self.originals.pop(name)
        process.send_signal(signal.SIGSTOP)
        self.db.ping()
        held = list(self.db.hkeys(f"jobs:active:{name}"))
        process.kill()
        await process.wait()
        self.db.delete(f"jobs:active:{name}", f"worker:{name}:heartbeat")
        for job_id in held:
            del self.jobs[job_id]
        return held

    def leave(self, *names: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Tell machines to stop, and not to be started again."""
        for name in names:
            self._staying.discard(name)
            self.machines[name].signal(number)

    async def stop(self) -> list[int]:
        """Let all machines leave; their exit codes."""
        staying = [name for name in self.machines if name in self._staying]
        self.leave(*staying)
        return [await self.machines[name].code() for name in staying]

    def unsettled(self) -> list[str]:
        """The jobs that have not ended."""
        pipe = self.db.pipeline(transaction=False)
        for job_id in self.jobs:
            pipe.hget(f"job:{job_id}", "status")
        return [job_id for job_id, status in zip(self.jobs, pipe.execute(), strict=True) if status not in SETTLED]

    async def until_settled(self, most: int = 0) -> None:
        """Wait until no more than ``most`` jobs have not ended, as long as that may take."""
        with trio.move_on_after(PATIENCE):
            while len(self.unsettled()) > most:
                await trio.sleep(_SWEEP)

    async def until_begun(self, count: int) -> None:
        """Wait until so many of the jobs have been claimed."""
        await eventually(lambda: sum(job_id in self._listener.claims for job_id in self.jobs) >= count)

    def account(self, row: Row, *, causes: Callable[[str], bool] | None = None) -> None:
        """Write down in a row what became of the jobs.

        Args:
            causes: of further jobs, whether they may fail for good.
        """
        row.jobs = len(self.jobs)
        row.lost = self.unsettled()
        for job_id, payload in self.jobs.items():
            job = self.db.hgetall(f"job:{job_id}")
            row.charged += int(job.get("crashes") or 0)
            expected = payload.get("bad") or (causes is not None and causes(job_id))
            if job.get("status") == "failed" and not expected:
                row.blamed.append(job_id)
            ends = len(self._listener.ends[job_id])
            if ends > 1 or (ends == 0 and self._listener.gaps == 0 and job_id not in row.lost):
                row.twice.append(job_id)
        for job_id, at in self._interrupted:
            again = [when for when, _ in self._listener.claims[job_id] if when > at]
            if again:
                row.recoveries.append(again[0] - at)
        for key in ("jobs:pending", "emp:leases", "emp:delayed"):
            left = set(self.db.zrange(key, 0, -1)) - set(row.lost)
            if left:
                row.broken.append(f"{key} still has {len(left)}")
        if left := list(self.db.scan_iter("jobs:active:*", count=1000)):
            row.broken.append(f"still there: {' '.join(left[:3])}")


@asynccontextmanager
async def open_fleet(url: str, rng: random.Random) -> AsyncIterator[Fleet]:
    """A :class:`Fleet` without machines; those it gets are gone at the end of the block."""
    try:
        with listening(url) as listener:
            async with trio.open_nursery() as nursery:
                fleet = Fleet(url, listener, nursery, rng)
                try:
                    yield fleet
                finally:
                    nursery.cancel_scope.cancel()
                    fleet.db.close()
    except BaseExceptionGroup as group:
        raise leading_error(group) from group


async def resumed(db: Any, submitted: Sequence[str]) -> float:
    """Seconds until one of these jobs has been claimed."""
    began = monotonic()

    def claimed() -> bool:
        try:
            return any(db.hget(f"job:{job_id}", "status") != "pending" for job_id in submitted)
        except redis.RedisError:
            return False

    await eventually(claimed)
    return monotonic() - began
