"""The real command as a process, on pipes or on a terminal, and a worker that is played by hand."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from emp_trio.failures import Failure
from emp_trio.jobs import JobResult, OutputFile
from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.settlement import Identity, completed, failed
from emp_trio.queue.worker_queue import Claim, LeaseRef

LIMIT = 60.0  # seconds after which a wait of a test has failed
_PROGRAM = (sys.executable, "-c", "from emp_trio.cli import main; main()")
_UNWANTED = ("HUB_REDIS_URL", "REDIS_URL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE")


def environment(url: str | None, extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would change the output, and with the queue's URL."""
    env = {k: v for k, v in os.environ.items() if k not in _UNWANTED} | {"TERM": "xterm-256color"}
    return env | ({"HUB_REDIS_URL": url} if url else {}) | extra


class Running:
    """A command that runs; made by :func:`open_command`."""

    def __init__(self, process: trio.Process, streams: Mapping[str, Any]) -> None:
        self.process = process
        self._streams = streams
        self._read = dict.fromkeys(streams, b"")
        self._changed = trio.Event()

    async def collect(self, name: str) -> None:
        """Read one of its outputs to the end."""
        try:
            while more := await self._streams[name].receive_some():
                self._read[name] += more
                self._changed.set()
                self._changed = trio.Event()
        except (OSError, trio.BrokenResourceError):
            pass  # how a terminal says that nobody writes to it any more
        except trio.ClosedResourceError:
            pass  # close_out

    @property
    def out(self) -> str:
        return self._read["out"].decode()

    @property
    def err(self) -> str:
        return self._read["err"].decode()

    async def until(self, name: str, text: str) -> None:
        """Wait until it has written a text."""
        while text.encode() not in self._read[name]:
            await self._changed.wait()

    def interrupt(self) -> None:
        """What a terminal sends for ^C."""
        self.process.send_signal(signal.SIGINT)

    async def close_out(self) -> None:
        """Stop reading its stdout, as ``head`` does."""
        await self._streams["out"].aclose()

    async def code(self) -> int:
        """Wait for its end."""
        return await self.process.wait()


@asynccontextmanager
async def open_command(
    *words: str, url: str | None = None, stdin: bytes = b"", columns: int = 0, env: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """Run ``emp-trio WORDS``; at the end of the block all that it wrote has been read.

    Args:
        columns: width of a terminal that stderr is; 0 for a pipe. stdout is always a pipe.
    """
    with trio.fail_after(LIMIT):
        terminal, writer = os.openpty() if columns else (-1, subprocess.PIPE)
        if columns:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = await trio.lowlevel.open_process(
            [*_PROGRAM, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=writer,
            env=environment(url, env or {}),
        )
        if columns:
            os.close(writer)
        err = trio.lowlevel.FdStream(terminal) if columns else process.stderr
        running = Running(process, {"out": process.stdout, "err": err})
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.collect, "out")
                nursery.start_soon(running.collect, "err")
                assert process.stdin is not None
                async with process.stdin as pipe:
                    await pipe.send_all(stdin)
                yield running
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for stream in (process.stdout, err):
                    await stream.aclose()


async def run_command(*words: str, url: str | None = None, stdin: bytes = b"", **options: Any) -> tuple[int, str, str]:
    """Run ``emp-trio WORDS`` to its end: exit code, stdout, stderr."""
    async with open_command(*words, url=url, stdin=stdin, **options) as running:
        code = await running.code()
    return code, running.out, running.err


async def gather(*commands: str, url: str | None = None) -> list[tuple[int, str, str]]:
    """Run several at the same time: exit code, stdout, stderr of each."""
    done: dict[str, tuple[int, str, str]] = {}

    async def one(command: str) -> None:
        done[command] = await run_command(*command.split(), url=url)

    async with trio.open_nursery() as nursery:
        for command in commands:
            nursery.start_soon(one, command)
    return [done[command] for command in commands]


async def run_json(*words: str, url: str, **options: Any) -> Any:
    """The one JSON document that a command prints on stdout."""
    _, out, _ = await run_command(*words, url=url, **options)
    return json.loads(out)


class Player:
    """A worker's side of the queue, played by the test."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.name = "m1-worker-mock-0"

    async def claim(self, job_type: str = "mock") -> Claim:
        """Wait for a job and claim it."""
        capabilities = msgspec.json.encode({"services": [job_type], "job_service_required_map": [job_type]})
        while True:
            slots = [(self.name, uuid.uuid4().hex)]
            claims = await self.queue.worker_queue.claim(capabilities, "m1", slots, lease=60)
            if claims.jobs:
                return claims.jobs[0]
            await trio.sleep(0.02)

    async def report(self, claim: Claim, value: float, message: str = "") -> None:
        """Progress of the job."""
        await self.queue.worker_queue.progress([(_lease(claim), value, message, "", 0)])

    async def complete(self, claim: Claim, **data: Any) -> None:
        """End the attempt well, with one file."""
        file = OutputFile(
            filename="x.png",
            path="out/x.png",
            type="image",
            size_bytes=12345,
            mime_type="image/png",
            metadata={"cdn_url": "https://cdn.test/out/x.png"},
        )
        result = JobResult(success=True, data=data, output_files=(file,))
        settlement = completed(
            read_job(claim.job_id, claim.attempt, claim.fields), result, self._identity, now=time.time()
        )
        assert await self.queue.worker_queue.settle(_lease(claim), "m1", settlement)

    async def fail(self, claim: Claim, message: str) -> None:
        """End the attempt for good."""
        failure = Failure(type="generation_refusal", reason="nsfw_content", message=message, retry=False)
        job = read_job(claim.job_id, claim.attempt, claim.fields)
        settlement = failed(job, failure, self._identity, now=time.time(), random=0.5)
        assert await self.queue.worker_queue.settle(_lease(claim), "m1", settlement)

    async def register(self) -> None:
        """Join the fleet's lists."""
        capabilities = {"mock": '{"worker_id": "@WORKER_ID@", "services": ["mock"]}'}
        await self.queue.worker_queue.heartbeat(
            "m1",
            connected_at="2025-10-04T19:38:45.123Z",
            fresh=True,
            statuses=b"{}",
            capabilities=msgspec.json.encode(capabilities),
            slots=msgspec.json.encode([[self.name, "mock", 0, 0]]),
            messages=(),
        )

    @property
    def _identity(self) -> Identity:
        return Identity(worker_id=self.name, machine_id="m1")


@asynccontextmanager
async def open_player(url: str) -> AsyncIterator[Player]:
    """A worker for the test to play, on its own connection."""
    async with open_queue(url) as queue:
        yield Player(queue)


def _lease(claim: Claim) -> LeaseRef:
    return LeaseRef(claim.job_id, claim.token)
