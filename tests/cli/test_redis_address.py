"""What each command says of a Redis that it can't use, in one sentence and at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from emp_trio.queue.embedded import free_port
from emp_trio.testing.valkey import valkey_server
from tests.cli.client_support import run_command

COMMANDS = (
    "submit mock",
    "worker --workers mock",
    "jobs",
    "workers",
    "watch j",
    "cancel j",
    "retry j",
    "reap",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with valkey_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as url:
        yield url


@pytest.mark.parametrize("command", COMMANDS)
async def test_cluster_mode_is_refused_by_every_command(cluster: str, command: str) -> None:
    began = time.monotonic()
    code, out, err = await run_command(*command.split(), url=cluster)
    assert code == 2
    assert out == ""
    said = [line for line in err.splitlines() if "error" in line]
    assert len(said) == 1
    assert "Redis runs in cluster mode, which emp-trio does not support" in said[0]
    assert time.monotonic() - began < 9  # less than the patience with a server that is away


@pytest.mark.parametrize("command", ["submit mock", "worker --workers mock"])
async def test_a_url_that_cannot_be_read_is_explained_without_showing_it(command: str) -> None:
    code, out, err = await run_command(*command.split(), url="redis+sentinel://:geheim@host:port/jobs")
    assert (code, out) == (2, "")
    assert "host:port,host:port/service/database" in " ".join(err.split())
    assert "geheim" not in err
