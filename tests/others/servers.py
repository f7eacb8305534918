"""Servers that others wrote, as processes on free loopback ports; what is not installed is skipped with the reason."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

ROOT: Final = Path(__file__).parents[2]
NODE: Final = Path(os.environ.get("EMP_TRIO_TEST_NODE_MODULES") or ROOT / ".cache" / "others" / "node_modules")
"""Where ``nox -s others`` installs the servers from the npm registry."""
_START: Final = 120.0  # seconds a server may take to answer


def module(name: str) -> list[str]:
    """The command that runs a server from the Python registry, or a skip."""
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: `nox -s others` does it")
    return [sys.executable, "-m", name]


def script(package: str, path: str) -> list[str]:
    """The command that runs a server from the npm registry, or a skip."""
    file = NODE / package / path
    if shutil.which("node") is None or not file.exists():
        pytest.skip(f"{package} is not installed: `nox -s others` does it")
    return ["node", str(file)]


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, folder: Path, **environment: str) -> Iterator[None]:
    """Run ``command`` in ``folder`` until the block ends; it must answer at ``url``, whatever the status."""
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        ) as process,
    ):
        try:
            _wait(process, url, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[Any], url: str, log: Path) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended: {log.read_text()[-2000:]}"
        try:
            httpx.get(url, timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"it did not answer within {_START:g} s: {log.read_text()[-2000:]}")
