"""The queue for other programs: submit, job, jobs, watch, cancel, retry, workers.

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
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import msgspec

from emp_trio.errors import InvalidJob, QueueError
from emp_trio.queue import library
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.events import JobEvent, watch
from emp_trio.queue.messages import iso
from emp_trio.queue.port import RedisPort, RedisSettings
from emp_trio.queue.verbs import Verbs
from emp_trio.secrets import Secret

State = Literal["pending", "delayed", "active", "completed", "failed"]


class JobInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the queue knows of a job. ``result`` and ``payload`` are there only where :meth:`Queue.job` was asked."""

    id: str
    type: str
    status: str
    state: State
    priority: int = 50
    progress: float | None = None
    message: str = ""
    worker_id: str | None = None
    attempt: int = 0
    retry_count: int = 0
    max_attempts: int = 3
    created_at: str = ""
    started_at: str | None = None
    ended_at: str | None = None
    error: str | None = None
    failure_type: str | None = None
    failure_reason: str | None = None
    cancelled: bool = False
    workflow_id: str | None = None
    not_before: str | None = None
    payload: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of the fleet as Redis has it."""

    worker_id: str
    machine_id: str
    status: str
    current_job_id: str | None
    services: tuple[str, ...]
    last_heartbeat: str
    alive: bool


class Queue:
    """Typed verbs on the queue; made by :func:`open_queue`, or around any :class:`~emp_trio.queue.port.RedisPort`."""

    def __init__(self, port: RedisPort) -> None:
        self.port = port
        self.verbs = Verbs(port)

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
        """Add a job. It is stored once, however often the connection breaks meanwhile.

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
            QueueError: Redis can't take it.
        """
        job_id = job_id or str(uuid.uuid4())
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
        reply = await self.verbs.surely(lambda: self.verbs.function("submit", job_id, nonce, encoded, *flat))
        if reply == b"exists":
            raise InvalidJob(f"there is a job {job_id!r} already; give another id or none")
        return job_id

    async def job(self, job_id: str) -> JobInfo | None:
        """All that the queue knows of a job, or None where there is no such job."""
        fields = await self.port.call("HGETALL", f"job:{job_id}")
        return await self._info(job_id, fields, whole=True) if fields else None

    async def jobs(self, state: State | None = None, *, limit: int = 50) -> list[JobInfo]:
        """Jobs by state, those that matter first: active, delayed, pending, failed, completed.

        Args:
            state: only this one.
            limit: at most so many per state.
        """
        found: list[JobInfo] = []
        for name in ("active", "delayed", "pending", "failed", "completed"):
            if state in (None, name):
                for job_id in await self._ids(name, limit):
                    fields = await self.port.call("HMGET", f"job:{job_id}", *_LISTED)
                    pairs = {k: v for k, v in zip(_LISTED, fields, strict=True) if v is not None}
                    if pairs:
                        found.append(await self._info(job_id, {k.encode(): v for k, v in pairs.items()}, whole=False))
        return found

    async def _ids(self, state: str, limit: int) -> list[str]:
        match state:
            case "pending":
                reply = await self.port.call("ZREVRANGE", "jobs:pending", 0, limit - 1)
            case "delayed":
                reply = await self.port.call("ZRANGE", "emp:delayed", 0, limit - 1)
            case "active":
                reply = await self.port.call("ZRANGE", "emp:leases", 0, limit - 1)
            case _:
                _, flat = await self.port.call("HSCAN", f"jobs:{state}", 0, "COUNT", limit)
                reply = list(flat)[::2] if isinstance(flat, list) else list(flat)
        return [job_id.decode("utf-8", "replace") for job_id in reply][:limit]

    async def _info(self, job_id: str, raw: Any, *, whole: bool) -> JobInfo:
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        fields = {k.decode(): v for k, v in pairs}
        text = {k: v.decode("utf-8", "replace") for k, v in fields.items() if k not in ("payload", "ctx")}
        status = text.get("status", "pending")
        progress = await self.port.call("HMGET", f"job:{job_id}:progress", "progress", "message")
        due = await self.port.call("ZSCORE", "emp:delayed", job_id) if status in ("pending", "queued") else None
        state: State = (
            "completed"
            if status == "completed"
            else "failed"
            if status in ("failed", "cancelled", "timeout", "unworkable")
            else "active"
            if status in ("assigned", "accepted", "in_progress")
            else "delayed"
            if due is not None
            else "pending"
        )
        result = None
        if whole and state == "completed":
            stored = await self.port.call("HGET", "jobs:completed", job_id)
            result = _object(stored).get("data") if stored else None
        return JobInfo(
            id=job_id,
            type=text.get("service_required", ""),
            status=status,
            state=state,
            priority=_number(text.get("priority"), 50),
            progress=100.0 if state == "completed" else float(progress[0]) if progress[0] else None,
            message=(progress[1] or b"").decode("utf-8", "replace") if state == "active" else "",
            worker_id=text.get("worker_id") or None,
            attempt=_number(text.get("attempt"), 0),
            retry_count=_number(text.get("retry_count"), 0),
            max_attempts=_number(text.get("max_retries"), 3),
            created_at=text.get("created_at", ""),
            started_at=text.get("started_at") or None,
            ended_at=text.get("completed_at") or text.get("failed_at") or None,
            error=(text.get("error") or None) if state != "completed" else None,
            failure_type=(text.get("failure_type") or None) if state != "completed" else None,
            failure_reason=(text.get("failure_reason") or None) if state != "completed" else None,
            cancelled=state == "failed" and bool(text.get("cancelled_at")),
            workflow_id=text.get("workflow_id") or None,
            not_before=iso(float(due) / 1000) if due is not None else None,
            payload=_object(fields.get("payload", b"")) if whole else None,
            result=result if isinstance(result, dict) else None,
        )

    def watch(self, job_id: str) -> AbstractAsyncContextManager[AsyncIterator[JobEvent]]:
        """Progress of a job as it comes, ending with its outcome; missed messages are made up for from the state, and a
        lost connection is waited for.

        The events end after the one whose ``kind`` is ``completed``, ``failed`` or ``missing``.
        """
        return watch(self.port, job_id, lambda wanted: self.verbs.surely(lambda: self.job(wanted)))

    async def cancel(self, job_id: str, reason: str = "cancelled by the user") -> str:
        """End a job wherever it is.

        Returns:
            ``cancelled``; ``settled`` when it had ended already; ``missing`` when there is no such job.
        """
        reply = await self.verbs.surely(lambda: self.verbs.function("cancel", job_id, reason))
        return str(reply[0].decode())

    async def retry(self, job_id: str) -> str:
        """Give a failed job a new life with all its attempts.

        Returns:
            ``queued``; ``refused`` when the job has not failed; ``missing`` when there is no such job.
        """
        nonce = uuid.uuid4().hex
        reply = await self.verbs.surely(lambda: self.verbs.function("retry", job_id, nonce))
        return str(reply[0].decode())

    async def workers(self) -> list[WorkerInfo]:
        """The slots of the fleet, by id."""
        found: list[WorkerInfo] = []
        for raw in sorted(await self.port.call("SMEMBERS", "workers:active")):
            worker_id = raw.decode("utf-8", "replace")
            names = ("machine_id", "status", "current_job_id", "capabilities", "last_heartbeat")
            values = await self.port.call("HMGET", f"worker:{worker_id}", *names)
            fields = {k: (v or b"").decode("utf-8", "replace") for k, v in zip(names, values, strict=True)}
            alive = await self.port.call("EXISTS", f"worker:{worker_id}:heartbeat")
            if fields["machine_id"] or alive:
                services = _object(fields["capabilities"].encode()).get("services")
                found.append(
                    WorkerInfo(
                        worker_id=worker_id,
                        machine_id=fields["machine_id"],
                        status=fields["status"],
                        current_job_id=fields["current_job_id"] or None,
                        services=tuple(map(str, services)) if isinstance(services, list) else (),
                        last_heartbeat=fields["last_heartbeat"],
                        alive=bool(alive),
                    )
                )
        return found


_LISTED = (
    "id service_required status priority worker_id attempt retry_count max_retries created_at started_at completed_at "
    "failed_at error failure_type failure_reason cancelled_at workflow_id"
).split()


@asynccontextmanager
async def open_queue(url: str | Secret) -> AsyncIterator[Queue]:
    """Connect to a queue.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.

    Raises:
        ConfigError, NotSent: as :func:`~emp_trio.queue.bridge.open_bridge`.
    """
    secret = url if isinstance(url, Secret) else Secret(url)
    async with open_bridge(RedisSettings(url=secret)) as bridge:
        await library.ensure(bridge)
        yield Queue(bridge)


def _wire(value: Any) -> str | bytes:
    if isinstance(value, dict):
        return msgspec.json.encode(value)
    return "" if value is None else str(value)


def _object(encoded: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(text: str | None, default: int) -> int:
    try:
        return int(float(text or "x"))
    except (ValueError, OverflowError):
        return default


__all__ = ["JobEvent", "JobInfo", "Queue", "QueueError", "WorkerInfo", "open_queue"]
