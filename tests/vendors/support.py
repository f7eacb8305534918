"""A simulated service as users start it: ``emp-trio simulate``, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def simulated(service: str) -> Iterator[dict[str, str]]:
    """Run it for the block; yields the environment that leads a client to it."""
    words = [sys.executable, "-m", "emp_trio", "simulate", service, "--port", "0", "--seconds", "0.05", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            environment: dict[str, str] = json.loads(process.stdout.readline())["environment"]
            yield environment
        finally:
            process.terminate()
