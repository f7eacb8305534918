"""``emp-trio worker`` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from emp_trio.nursery import leading_error
from tests.worker.support import LIMIT

ROOT = Path(__file__).parents[2]
ACTORS = str(Path(__file__).with_name("actors.json"))
"""A mapping of the connectors in ``actors.py``."""


class WorkerProcess:
    """``emp-trio worker`` as a process; made by :func:`open_worker`. ``logs`` are its JSON lines, ``err`` the rest."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.logs: list[dict[str, Any]] = []
        self.err = ""
        self._changed = trio.Event()
        self._closed = False

    async def collect(self) -> None:
        """Read its log to the end."""
        rest = b""
        assert self.process.stderr is not None
        async for piece in self.process.stderr:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    self.logs.append(json.loads(line))
                else:
                    self.err += line.decode() + "\n"
            self._wake()
        self._closed = True
        self._wake()

    async def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for a log line."""
        with trio.fail_after(LIMIT):
            while True:
                for line in self.logs:
                    if line["event"] == event and all(line.get(k) == v for k, v in fields.items()):
                        return line
                assert not self._closed, f"it ended without {event}: {self.logs[-5:]} {self.err}"
                await self._changed.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of one event so far."""
        return [line for line in self.logs if line["event"] == name]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def code(self) -> int:
        """Wait for its end and for the last of its log."""
        with trio.fail_after(LIMIT):
            code = await self.process.wait()
            while not self._closed:
                await self._changed.wait()
        return code

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_worker(
    url: str | None, *words: str, ready: bool = True, **environment: str
) -> AsyncIterator[WorkerProcess]:
    """Run ``emp-trio worker WORDS``; whatever happens it is gone at the end of the block.

    Args:
        ready: wait until it says that it is.
        environment: variables, over a nearly empty environment.
    """
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {"HUB_REDIS_URL": url} if url else {}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "emp_trio", "worker", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env | environment,
        cwd=ROOT,
    )
    worker = WorkerProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.collect)
            if ready:
                await worker.until("machine.ready")
            yield worker
            if process.returncode is None:
                process.kill()
            await worker.code()
    except BaseExceptionGroup as group:
        raise leading_error(group) from group
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()  # type: ignore[union-attr]


async def run_cli(*words: str, limit: float = 60.0) -> tuple[int, str, str]:
    """Run ``emp-trio WORDS`` to its end: exit code, stdout, stderr."""
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with trio.fail_after(limit):
        done = await trio.run_process(
            [sys.executable, "-m", "emp_trio", *words],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=env,
            cwd=ROOT,
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
