"""What the tests of the worker share: machines in the test's own run, connectors that wait for the test, and jobs as
the fleet's API writes them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import redis
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.mapping import Plan, ServicePlan, WorkerPlan
from emp_trio.mapping.schema import Service
from emp_trio.nursery import leading_error
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Redactor, Secret
from emp_trio.services.connector import Connector
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.machine import Machine
from emp_trio.worker.observer import JobObserver
from emp_trio.worker.run import run_machine
from emp_trio.worker.settings import WorkerSettings
from tests.queue.support import OLD_FIELDS, iso

HEAVY = os.environ.get("EMP_TRIO_HEAVY") == "1"
"""Whether the long forms of the tests are wanted."""
LIMIT = 60.0  # seconds after which a wait of a test has failed
SHORT: dict[str, Any] = {
    "lease": 1.5,
    "renew_every": 0.4,
    "lease_margin": 0.3,
    "renew_timeout": 0.5,
    "beat_every": 0.5,
    "poll_every": 0.5,
    "reap_every": 0.4,
    "health_every": 5.0,
    "health_retry": 0.1,
    "drain": 10.0,
}
"""Settings with which a lost lease, a beat and a reap take tenths of seconds."""

Act: TypeAlias = Callable[[Job, AttemptContext], Awaitable[Any]]
DONE = JobResult(success=True, data={"text": "done"})


class Attempted:
    """One attempt as its connector saw it."""

    def __init__(self, job: Job, context: AttemptContext) -> None:
        self.job = job
        self.progress = context
        self.began = trio.current_time()
        self.ended: float | None = None
        self.cancelled = False
        self.stop_remote_work: bool | None = None  # what the connector saw while it was being cancelled


class Play:
    """A connector for a test: keeps what happened in ``attempts``, and does in each what ``act`` does.

    Without an ``act`` an attempt waits until ``finish`` is set, or until it is cancelled.
    """

    def __init__(self, act: Act | None = None, **members: Any) -> None:
        self.attempts: list[Attempted] = []
        self.finish = trio.Event()
        self._act = act or self._wait
        self._changed = trio.Event()

        async def run(_: Connector, job: Job, context: AttemptContext) -> Any:
            attempt = Attempted(job, context)
            self.attempts.append(attempt)
            self._wake()
            try:
                return await self._act(job, context)
            except trio.Cancelled:
                attempt.cancelled = True
                attempt.stop_remote_work = context.stop_remote_work
                raise
            finally:
                attempt.ended = trio.current_time()
                self._wake()

        self.connector: type[Connector] = type("PlayConnector", (Connector,), {"run": run, **members})

    async def _wait(self, job: Job, context: AttemptContext) -> JobResult:
        await self.finish.wait()
        return DONE

    async def until_begun(self, count: int = 1) -> Attempted:
        """Wait until so many attempts have begun; the last of them."""
        await self._until(lambda: len(self.attempts) >= count)
        return self.attempts[count - 1]

    async def until_over(self, count: int = 1) -> Attempted:
        """Wait until so many attempts are over; the last of them."""
        await self._until(lambda: sum(a.ended is not None for a in self.attempts) >= count)
        return self.attempts[count - 1]

    async def _until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(LIMIT):
            while not condition():
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


Workers: TypeAlias = Mapping[str, Play | tuple[type[Connector], Any]]
"""Worker type -> a play, or a connector class and its settings."""


def make_plan(workers: Workers, slots: int, *, job_timeout_minutes: float | None = None) -> Plan:
    """Each name is a worker type, its only job type and its service."""
    services = {}
    for name, given in workers.items():
        cls, settings = given if isinstance(given, tuple) else (given.connector, given.connector.Settings())
        entry = Service(connector=cls.__name__, job_timeout_minutes=job_timeout_minutes)
        services[name] = ServicePlan(
            worker_service=f"{name}-service",
            connector_name=cls.__name__,
            connector=cls,
            settings=settings,
            entry=entry,
        )
    planned = [
        WorkerPlan(name=name, numbers=tuple(range(slots)), is_gpu_bound=False, routes={name: service})
        for name, service in services.items()
    ]
    return Plan(workers=tuple(planned), services={s.worker_service: s for s in services.values()})


@asynccontextmanager
async def open_machine(
    url: str,
    workers: Workers,
    *,
    slots: int = 2,
    machine_id: str = "m1",
    environment: Mapping[str, str] | None = None,
    secrets: tuple[str, ...] = (),
    redis_settings: Mapping[str, Any] | None = None,
    job_timeout_minutes: float | None = None,
    plan: Plan | None = None,
    storage: StorageSettings | None = None,
    observers: Sequence[JobObserver] = (),
    **settings: Any,
) -> AsyncIterator[Machine]:
    """A machine in the test's own run, ready; at the end of the block it hands its jobs back and stops.

    Args:
        workers: worker type (and job type) -> connector.
        job_timeout_minutes: of the services in the mapping.
        settings: of :class:`WorkerSettings`, over those of :data:`SHORT`.
    """
    run = partial(
        run_machine,
        plan or make_plan(workers, slots, job_timeout_minutes=job_timeout_minutes),
        WorkerSettings(machine_id=machine_id, **{**SHORT, **settings}),
        RedisSettings(url=Secret(url), **(redis_settings or {})),
        storage or StorageSettings(),
        environment=environment or {},
        hardware=Hardware(gpus=1, gpu_memory_gb=24, gpu_model="A", ram_gb=64),
        redactor=Redactor([Secret(text) for text in secrets]),
        observers=observers,
    )
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(LIMIT):
                machine = await nursery.start(run)
            yield machine
            machine.shutdown.stop("the test is over")
            machine.shutdown.stop("at once")
            nursery.cancel_scope.deadline = trio.current_time() + LIMIT
        assert not nursery.cancel_scope.cancelled_caught, "the machine did not stop"
    except BaseExceptionGroup as group:
        raise leading_error(group) from group


def client(url: str) -> Any:
    """A connection of the old kind, as foreign members of the fleet have it."""
    return redis.Redis.from_url(url, decode_responses=True)


def submit(
    db: Any, job_type: str, payload: Any = None, *, text: str | None = None, tell: bool = True, **fields: Any
) -> str:
    """Submit a job as the fleet's API does (queue protocol 1.3, 2.1): HMSET, ZADD, PUBLISH. Returns its id.

    ``text`` is a payload that is JSON already.
    """
    job_id = fields.pop("id", None) or str(uuid.uuid4())
    job = {
        **dict.fromkeys(OLD_FIELDS, ""),
        "id": job_id,
        "service_required": job_type,
        "priority": "50",
        "payload": json.dumps(payload or {}) if text is None else text,
        "created_at": iso(),
        "status": "pending",
        "retry_count": "0",
        "max_retries": "3",
        "job_trace_id": "temp-trace-id",
        "job_span_id": "temp-span-id",
    } | {k: json.dumps(v) if isinstance(v, dict) else v for k, v in fields.items()}
    score = fields.get("score", 50)
    db.hset(f"job:{job_id}", mapping=job)
    db.zadd("jobs:pending", {job_id: score * 1e15 - 1759600000})
    if tell:
        db.publish("job_submitted", json.dumps({"job_id": job_id, "service_required": job_type}))
    return job_id


def cancel_as_api(db: Any, job_id: str, *, tell: bool = True) -> None:
    """Cancel a running job as the fleet's API does (queue protocol 4.8)."""
    worker = db.hget(f"job:{job_id}", "worker_id")
    db.hset(f"job:{job_id}", mapping={"status": "failed", "failed_at": iso(), "error": "cancelled"})
    db.hdel(f"jobs:active:{worker}", job_id)
    if tell:
        db.publish("cancel_job", json.dumps({"job_id": job_id, "worker_id": worker, "reason": "x", "timestamp": 1}))
    db.hset("jobs:failed", job_id, json.dumps({"error": "cancelled", "failed_at": iso(), "cancelled": True}))


async def eventually(condition: Callable[[], Any], *, limit: float = LIMIT) -> Any:
    """Wait until a condition on somebody else's state holds; what it gave."""
    with trio.fail_after(limit):
        while not (found := condition()):
            await trio.sleep(0.01)
        return found


async def until_status(db: Any, job_id: str, status: str, *, limit: float = LIMIT) -> dict[str, str]:
    """Wait until a job has a status; its hash."""
    await eventually(lambda: db.hget(f"job:{job_id}", "status") == status, limit=limit)
    return dict(db.hgetall(f"job:{job_id}"))
