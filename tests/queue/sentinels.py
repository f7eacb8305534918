"""A master, a replica and three Sentinels, as real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from emp_trio.queue.embedded import free_port, server_binary
from emp_trio.testing.valkey import valkey_server

SERVICE = "jobs"
LIMIT = 60.0

SENTINELS = {"valkey": lambda: [server_binary()], "redis": lambda: [shutil.which("redis-sentinel")]}
"""Programs that can be Sentinels: the server that comes with the tests, and Redis' own where it is installed."""


def sentinel_program(kind: str) -> list[str]:
    """The program of a Sentinel; skips the test where it is missing."""
    (program,) = SENTINELS[kind]()
    if program is None:
        pytest.skip("redis-sentinel is not installed (on Debian and Ubuntu: apt install redis-sentinel)")
    return [program]


class Fleet:
    """Two servers, one of them the master, and the Sentinels who watch them.

    Attributes:
        hosts: host:port of each Sentinel, joined by commas.
        ports: ports of the two servers.
    """

    def __init__(self, hosts: str, ports: Sequence[int], password: str, sentinel_password: str) -> None:
        self.hosts = hosts
        self.ports = tuple(ports)
        self._password = password
        self._frozen: list[int] = []
        self._sentinels: list[Any] = [
            redis.Redis(port=int(host.rpartition(":")[2]), password=sentinel_password or None, decode_responses=True)
            for host in hosts.split(",")
        ]
        self.sentinel = self._sentinels[0]

    def db(self, port: int) -> Any:
        """A connection to the server on a port."""
        return redis.Redis(port=port, password=self._password or None, decode_responses=True)

    def master(self) -> int:
        """Port of the master, as the first Sentinel says."""
        reply = self.sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(reply[1])

    def is_ready(self) -> bool:
        """Whether the Sentinels know each other and the replica, and have set it right after a fail-over."""
        for sentinel in self._sentinels:
            master = _pairs(sentinel.execute_command("SENTINEL", "MASTER", SERVICE))
            replicas = [_pairs(r) for r in sentinel.execute_command("SENTINEL", "REPLICAS", SERVICE)]
            if int(master["num-other-sentinels"]) < 2 or (master["flags"], master["role-reported"]) != ("master",) * 2:
                return False
            if [(r["flags"], r["role-reported"], r["master-link-status"]) for r in replicas] != [
                ("slave", "slave", "ok")
            ]:
                return False
        return True

    def freeze(self, port: int) -> None:
        """Have a server keep its connections and answer nothing, as behind a router that went away."""
        pid = self.db(port).info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        self._frozen.append(pid)

    def close(self) -> None:
        """Let frozen servers go on, and close the connections to the Sentinels."""
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        for sentinel in self._sentinels:
            sentinel.close()

    def fail_over(self) -> int:
        """Have the Sentinels make the other server the master; its port."""
        before = self.master()
        eventually(self._asked)
        eventually(lambda: self.master() != before)
        return self.master()

    def _asked(self) -> bool:
        try:
            self.sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
        except redis.ResponseError:  # another one is under way, or the replica is not good enough yet
            return False
        return True


def _pairs(state: Any) -> dict[str, str]:
    """A Sentinel's description of a server; a dict where the connection speaks RESP3."""
    return state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def sentinel_fleet(
    folder: Path, program: Sequence[str], *, password: str = "", sentinel_password: str = ""
) -> Iterator[Fleet]:
    """A :class:`Fleet` for the length of the block."""
    login = ("--masterauth", password) if password else ()
    with ExitStack() as stack:
        first = int(stack.enter_context(valkey_server(*login, password=password)).rpartition(":")[2])
        replica = stack.enter_context(
            valkey_server("--replicaof", f"127.0.0.1 {first}", *login, password=password, start_limit=LIMIT)
        )
        hosts = []
        for number in range(3):
            port = free_port()
            config = folder / f"sentinel-{number}.conf"
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {folder}",
                f"sentinel monitor {SERVICE} 127.0.0.1 {first} 2",
                f"sentinel down-after-milliseconds {SERVICE} 1000",
                f"sentinel failover-timeout {SERVICE} 4000",
            ]
            lines += [f"sentinel auth-pass {SERVICE} {password}"] if password else []
            lines += [f"requirepass {sentinel_password}"] if sentinel_password else []
            lines += [f"sentinel sentinel-pass {sentinel_password}"] if sentinel_password else []
            config.write_text("\n".join(lines) + "\n")
            process = subprocess.Popen(
                [*program, str(config), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            hosts.append(f"127.0.0.1:{port}")
        fleet = Fleet(",".join(hosts), [first, int(replica.rpartition(":")[2])], password, sentinel_password)
        stack.callback(fleet.close)
        eventually(lambda: _answers(fleet))
        eventually(fleet.is_ready)
        yield fleet


def _answers(fleet: Fleet) -> bool:
    try:
        return bool(fleet.sentinel.ping())
    except redis.ConnectionError:
        return False
