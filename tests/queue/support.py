"""What the tests of the queue share: the function library called straight, jobs as old members of the fleet write them,
and an ear for everything that is published."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
import trio

from emp_trio.queue import library

CAPABILITIES = {
    "machine_id": "m1",
    "services": ["comfyui"],
    "job_service_required_map": ["comfyui"],
    "hardware": {"gpu_memory_gb": 24, "ram_gb": 64, "gpu_model": "A"},
    "models": {},
    "customer_access": {"isolation": "loose", "max_concurrent_customers": 10},
    "performance": {"concurrent_jobs": 1, "quality_levels": ["fast", "balanced", "quality"]},
}
"""The worker of queue protocol 8.2."""

TLS = Path(__file__).parent.parent / "data" / "tls"
"""Certificates of a test authority: ``ca.pem``, and ``server.pem`` for localhost."""

OLD_FIELDS = (
    "requirements customer_id workflow_id workflow_priority workflow_datetime current_step total_steps "
    "workflow_trace_id workflow_span_id ctx"
).split()


def iso(ms: float | None = None) -> str:
    """Now, or ``ms`` since the epoch, as JavaScript writes it."""
    at = datetime.fromtimestamp((time.time() * 1000 if ms is None else ms) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def old_score(priority: float, ms: float) -> float:
    """Score S2 (queue protocol 1.2), with which old workers put a job back."""
    return priority * 1e6 + (2**53 - 1 - ms)


class Library:
    """The function library on a real server, called without the bridge."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.db: Any = redis.Redis.from_url(url, decode_responses=True)
        self.db.function_load(library.source()[0], replace=True)
        self._nonces = itertools.count(1)

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the library by its short name."""
        return self.db.fcall(f"emp_trio_{name}", 0, *args)

    def nonce(self) -> str:
        """A nonce that no other claim of this library had."""
        return f"n{next(self._nonces)}"

    def claim(
        self,
        *workers: str,
        nonces: tuple[str, ...] = (),
        capabilities: dict[str, Any] | None = None,
        machine: str = "m1",
        lease: float = 15.0,
        rank: int = 0,
        budget: int = 512,
        repeated: bool = False,
    ) -> dict[str, Any]:
        """Claim; the answer as {"next", "jobs": {id: (worker, token, fields)}, "dropped": {id: why}}."""
        slots = [p for pair in zip(workers, nonces or [self.nonce() for _ in workers], strict=True) for p in pair]
        text = json.dumps(CAPABILITIES if capabilities is None else capabilities)
        reply = self.call("claim", text, machine, round(lease * 1000), rank, budget, "01"[repeated], *slots)
        jobs = {j: (w, t, dict(zip(f[::2], f[1::2], strict=True))) for w, t, j, f, _ in reply[2]}
        return {"next": reply[0], "jobs": jobs, "dropped": {j: why for j, why in reply[3]}}  # noqa: C416

    def start(self, job: str, token: str, machine: str = "") -> bool:
        """Whether the attempt may begin."""
        return job not in self.call("start", machine, job, token)

    def settle(
        self,
        job: str,
        token: str,
        kind: str,
        *,
        count: int = 0,
        delay: float = 0.0,
        records: dict[str, str] | None = None,
    ) -> list[Any]:
        """End an attempt with values that name the token, so that tests can tell whose they are."""
        message = {"job_id": job, "worker_id": "w", "token": token, "can_retry": False, "timestamp": 1}
        flat = [p for pair in (records or {}).items() for p in pair]
        failure = ("boom", "service_error", "service_down") if kind in ("failed", "retry") else ("", "", "")
        stored = json.dumps({"by": token})
        return list(
            self.call(
                "settle",
                job,
                token,
                "m1",
                kind,
                count,
                round(delay * 1000),
                *failure,
                stored,
                json.dumps(message),
                "0",
                *flat,
            )
        )

    def job(self, job_id: str) -> dict[str, str]:
        """The hash of a job."""
        return dict(self.db.hgetall(f"job:{job_id}"))

    def submit(self, job_id: str | None = None, **fields: Any) -> str:
        """A job of type ``comfyui`` as the API writes it (queue protocol 1.3): every field, ``''`` where unset."""
        job_id = job_id or str(uuid.uuid4())
        job = {
            "id": job_id,
            "service_required": "comfyui",
            "priority": 50,
            "payload": "{}",
            "created_at": iso(),
            "status": "pending",
            "retry_count": 0,
            "max_retries": 3,
            "job_trace_id": "temp-trace-id",
            "job_span_id": "temp-span-id",
            **dict.fromkeys(OLD_FIELDS, ""),
            **fields,
        }
        job = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in job.items() if v is not None}
        priority = float(job.get("workflow_priority") or job.get("priority") or 50)
        stamp = datetime.fromisoformat(job["created_at"].replace("Z", "+00:00")).timestamp()
        self.db.hset(f"job:{job_id}", mapping=job)
        self.db.zadd("jobs:pending", {job_id: priority * 1e15 - int(stamp)})
        return job_id

    def expire_leases(self) -> None:
        """As if every lease had run out this moment."""
        self._shift("emp:leases")

    def make_due(self) -> None:
        """As if every delay had passed."""
        self._shift("emp:delayed")

    def _shift(self, key: str) -> None:
        for job_id in self.db.zrange(key, 0, -1):
            self.db.zadd(key, {job_id: 1})


class Ear:
    """Hears everything published on a server, in order."""

    def __init__(self, url: str) -> None:
        self._db: Any = redis.Redis.from_url(url, decode_responses=True)
        self._sub = self._db.pubsub()
        self._sub.psubscribe("*")
        self._next()

    def _next(self) -> dict[str, Any]:
        message = self._sub.get_message(timeout=60)
        assert message is not None, "nothing was published within 10 s"
        return dict(message)

    def heard(self, *channels: str) -> list[tuple[str, dict[str, Any]]]:
        """What was published since the last call: (channel, message), of these channels or of all."""
        mark, found = uuid.uuid4().hex, []
        self._db.publish("test:mark", mark)
        while (message := self._next())["data"] != mark:
            if not channels or message["channel"] in channels:
                found.append((message["channel"], json.loads(message["data"])))
        return found

    def close(self) -> None:
        """Stop listening."""
        self._sub.close()
        self._db.close()


@contextmanager
def listening(url: str) -> Iterator[Ear]:
    """An :class:`Ear` for the length of the block."""
    ear = Ear(url)
    try:
        yield ear
    finally:
        ear.close()


@asynccontextmanager
async def fake_server(answer: Callable[[list[bytes]], Awaitable[bytes]]) -> AsyncIterator[str]:
    """A server that answers each command as ``answer`` says, one after the other, and reads no further meanwhile."""

    async def serve(stream: trio.SocketStream) -> None:
        reader = hiredis.Reader()
        with suppress(trio.BrokenResourceError):  # the client went away
            async for data in stream:
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    await stream.send_all(await answer(command))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
"""A fake server's answer to HELLO."""


@contextmanager
def redis_server() -> Iterator[str]:
    """URL of a Redis, of 7.0 or later, as the distribution has it; skips the test where it is missing."""
    program = shutil.which("redis-server")
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout if program else ""
    found = re.match(r"Redis server v=(\d+)", version)
    if program is None or found is None or int(found[1]) < 7:
        pytest.skip("no Redis of 7.0 or later (on Debian and Ubuntu: apt install redis-server)")
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/redis.sock"
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", address, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            while not _answers(f"unix://{address}"):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield f"unix://{address}"
        finally:
            process.terminate()
            process.wait(20)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
