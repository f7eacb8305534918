"""The queue for other programs: submit, job, jobs, watch, cancel, retry, reap, workers.

::

    async with open_queue("redis://localhost") as queue:
        job_id = await queue.submit("openai_image", {"prompt": "a lighthouse"})
        async with queue.watch(job_id) as events:
            async for event in events:
                print(event)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import msgspec

from emp_trio.errors import InvalidJob, QueueError, ServerRefused
from emp_trio.queue import library
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.durable import open_durable_writes
from emp_trio.queue.events import JobEvent, watch
from emp_trio.queue.ids import why_refused
from emp_trio.queue.job_info import (
    LISTED,
    WORKER_FIELDS,
    JobInfo,
    State,
    WorkerInfo,
    job_info,
    state_of,
    unreadable,
    unreadable_worker,
    worker_info,
)
from emp_trio.queue.messages import iso
from emp_trio.queue.port import RedisPort, RedisSettings
from emp_trio.queue.reaping import Cleaned, reap_once
from emp_trio.queue.worker_queue import Durable, WorkerQueue
from emp_trio.secrets import Secret


class Queue:
    """Typed calls of the queue; made by :func:`open_queue`, or around any :class:`~emp_trio.queue.port.RedisPort`.

    Args:
        port: the Redis connection.
        patience: seconds for which ``submit``, ``cancel`` and ``retry`` are repeated while Redis is away, full or
            starting up; repeats do no harm.
        durable: where given, a job counts as submitted only when that says so.
    """

    def __init__(self, port: RedisPort, *, patience: float = 10.0, durable: Durable | None = None) -> None:
        self._durable = durable
        self.port = port
        self.worker_queue = WorkerQueue(port)
        self._patience = patience

    async def submit(
        self,
        job_type: str,
        payload: Mapping[str, Any] | None = None,
        *,
        ctx: Mapping[str, Any] | None = None,
        requirements: Mapping[str, Any] | None = None,
        priority: int = 50,
        job_id: str | None = None,
        customer_id: str = "",
        workflow_id: str = "",
        workflow_priority: int | None = None,
        workflow_datetime: int | None = None,
        current_step: int | None = None,
        total_steps: int | None = None,
        max_attempts: int = 3,
    ) -> str:
        """Add a job. It is stored at most once, however often the connection breaks meanwhile.

        Args:
            job_type: ``service_required`` on the wire.
            payload, ctx, requirements: JSON objects (queue protocol 5.1, 5.2, 3.4).
            priority: higher is sooner; 1 to 100 by convention.
            job_id: a new UUID unless given.
            workflow_datetime: milliseconds since the epoch.
            max_attempts: attempts in total.

        Returns:
            the job's id.

        Raises:
            InvalidJob: the job can't be expressed in JSON, or its id is taken.
            NotSent, ServerRefused: Redis could not take it within the patience.
            OutcomeUnknown: nobody knows whether it was stored: ask for the job, or submit it again under the same id.
        """
        job_id = str(uuid.uuid4()) if job_id is None else job_id
        if (bad := why_refused(job_id)) is not None:
            raise InvalidJob(f"the job can't be submitted: {bad}", reason="invalid_format")
        if not job_type:
            raise InvalidJob("a job needs a job type", reason="missing_required_field")
        if max_attempts < 1:
            raise InvalidJob("max_attempts must be at least 1")
        at, ms = iso(time.time()), int(time.time() * 1000)
        common: dict[str, Any] = {
            "service_required": job_type,
            "priority": priority,
            "payload": dict(payload or {}),
            "requirements": dict(requirements) if requirements else "",
            "customer_id": customer_id,
            "workflow_id": workflow_id,
            "workflow_priority": workflow_priority,
            "workflow_datetime": workflow_datetime,
            "current_step": current_step,
            "total_steps": total_steps,
        }
        message = {k: v for k, v in common.items() if v is not None and v != ""}
        message |= {"job_id": job_id, "created_at": at, "status": "pending", "timestamp": ms}
        fields = common | {
            "created_at": at,
            "retry_count": 0,
            "max_retries": max_attempts,
            "ctx": dict(ctx) if ctx else "",
            "job_trace_id": "",
            "job_span_id": "",
            "workflow_trace_id": "",
            "workflow_span_id": "",
        }
        try:
            encoded = msgspec.json.encode(message)
            flat = [part for name, value in fields.items() for part in (name, _wire(value))]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidJob(f"the job can't be written as JSON: {error}", reason="invalid_format") from None
        nonce = uuid.uuid4().hex

        async def store() -> Any:
            reply = await self.worker_queue.function("submit", job_id, nonce, encoded, *flat)
            if self._durable is not None:
                await self._durable.wait()
            return reply

        reply = await self.worker_queue.retry_until_accepted(store, patience=self._patience)
        if reply == b"exists":
            raise InvalidJob(f"there is a job {job_id!r} already; give another id or none")
        return job_id

    async def job(self, job_id: str) -> JobInfo | None:
        """All that the queue knows of a job, or None where there is no such job."""
        raw = await self.port.call("HGETALL", f"job:{job_id}")
        fields = {name.decode("utf-8", "replace"): value for name, value in raw.items()}
        if not fields.keys() & {"id", "service_required"}:  # none, or the progress of another job
            return None
        status = fields.get("status", b"").decode("utf-8", "replace")
        ended = {"completed": "jobs:completed", "failed": "jobs:failed"}.get(state_of(status, delayed=False))
        stored = await self._or_none("HGET", ended, job_id) if ended else None
        return job_info(job_id, fields, stored=stored, **await self._beside(self._or_none, job_id.encode(), status))

    async def jobs(self, state: State | None = None, *, limit: int = 50) -> list[JobInfo]:
        """Jobs by state, those that matter first: active, delayed, pending, failed, completed.

        Jobs that old workers run are not listed as active: nothing lists them.

        Args:
            state: only this one.
            limit: at most so many per state.
        """
        found: list[JobInfo] = []
        for name in ("active", "delayed", "pending", "failed", "completed"):
            if state in (None, name):
                for raw in await self._ids(name, limit):
                    job_id = raw.decode("utf-8", "replace")
                    try:
                        values = await self.port.call("HMGET", b"job:" + raw, *LISTED)
                        fields = {k: v for k, v in zip(LISTED, values, strict=True) if v is not None}
                        beside = await self._beside(
                            self.port.call, raw, fields.get("status", b"").decode("utf-8", "replace")
                        )
                    except ServerRefused as refusal:
                        if refusal.code != "WRONGTYPE":
                            raise
                        found.append(unreadable(job_id, name))
                    else:
                        found += [job_info(job_id, fields, **beside)] if fields else []
        return found

    async def _beside(self, ask: Callable[..., Awaitable[Any]], job_id: bytes, status: str) -> dict[str, Any]:
        """What the hash of a job does not say: progress, and when a delayed job is due."""
        waiting = state_of(status, delayed=False) == "pending"
        return {
            "progress": await ask("HMGET", b"job:" + job_id + b":progress", "progress", "message") or (None, None),
            "due": await ask("ZSCORE", "emp:delayed", job_id) if waiting else None,
        }

    async def _or_none(self, *command: str | bytes) -> Any:
        """The reply, or None where the key is of another type."""
        try:
            return await self.port.call(*command)
        except ServerRefused as refusal:
            if refusal.code != "WRONGTYPE":
                raise
            return None

    async def _ids(self, state: State, limit: int) -> list[bytes]:
        match state:
            case "pending":
                return list(await self.port.call("ZREVRANGE", "jobs:pending", 0, limit - 1))
            case "delayed" | "active":
                key = "emp:delayed" if state == "delayed" else "emp:leases"
                return list(await self.port.call("ZRANGE", key, 0, limit - 1))
            case _:
                found: dict[bytes, None] = {}
                cursor = b"0"
                while len(found) < limit:
                    cursor, flat = await self.port.call("HSCAN", f"jobs:{state}", cursor, "COUNT", limit)
                    found |= dict.fromkeys(flat[::2])
                    if cursor == b"0":
                        break
                return list(found)[:limit]

    def watch(self, job_id: str) -> AbstractAsyncContextManager[AsyncIterator[JobEvent]]:
        """Progress of a job as it comes, ending with its outcome; missed messages are made up for from the state, and a
        lost connection is waited for.

        The events end after the one whose ``kind`` is ``completed``, ``failed`` or ``missing``.
        """
        return watch(self.port, job_id, lambda wanted: self.worker_queue.retry_until_accepted(lambda: self.job(wanted)))

    async def cancel(self, job_id: str, reason: str = "cancelled by the user") -> str:
        """End a job wherever it is.

        Returns:
            ``cancelled``; ``settled`` when it had ended already; ``missing`` when there is no such job.
        """
        reply = await self._call("cancel", job_id, reason)
        return str(reply[0].decode())

    async def retry(self, job_id: str) -> str:
        """Give a failed job a new life with all its attempts.

        Returns:
            ``queued``; ``refused`` when the job has not failed; ``missing`` when there is no such job.
        """
        reply = await self._call("retry", job_id, uuid.uuid4().hex)
        return str(reply[0].decode())

    async def reap(self) -> Cleaned:
        """Put back what workers left behind; see :func:`emp_trio.queue.reaping.reap_once`, which takes up to half a
        minute."""
        return await reap_once(self.worker_queue)

    async def _call(self, function: str, *args: str | bytes | int) -> Any:
        return await self.worker_queue.retry_until_accepted(
            lambda: self.worker_queue.function(function, *args), patience=self._patience
        )

    async def workers(self) -> list[WorkerInfo]:
        """The slots of the fleet, by id."""
        found: list[WorkerInfo] = []
        for raw in sorted(await self.port.call("SMEMBERS", "workers:active")):
            worker_id = raw.decode("utf-8", "replace")
            values = await self._or_none("HMGET", b"worker:" + raw, *WORKER_FIELDS)
            alive = bool(await self.port.call("EXISTS", b"worker:" + raw + b":heartbeat"))
            if values is None:
                found.append(unreadable_worker(worker_id, alive=alive))
            elif values[0] or alive:
                found.append(worker_info(worker_id, values, alive=alive))
        return found


@asynccontextmanager
async def open_queue(url: str | Secret, *, durable: bool = False) -> AsyncIterator[Queue]:
    """Connect to a queue.

    Args:
        url: what :func:`emp_trio.queue.address.read_address` reads.
        durable: a job counts as submitted only when it is on the server's disk, and in a replica where there is one.

    Raises:
        ConfigError, NotSent: as :func:`~emp_trio.queue.bridge.open_bridge`.
    """
    secret = url if isinstance(url, Secret) else Secret(url)
    settings = RedisSettings(url=secret)
    async with open_bridge(settings) as bridge:
        await WorkerQueue(bridge).retry_until_accepted(lambda: library.ensure(bridge), patience=settings.patience)
        async with open_durable_writes(settings) if durable else nullcontext() as writes:
            yield Queue(bridge, durable=writes)


def _wire(value: Any) -> str | bytes:
    if isinstance(value, dict):
        return msgspec.json.encode(value)
    return "" if value is None else str(value)


__all__ = ["JobEvent", "JobInfo", "Queue", "QueueError", "WorkerInfo", "open_queue"]
