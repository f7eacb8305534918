"""Writes that outlive the server: what is waited for, and that nothing counts before."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import trio

from emp_trio.errors import ConfigError, EmpTrioError, OutcomeUnknown, ServerRefused
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.durable import DurableWrites, Wait, open_durable_writes, waits_for
from emp_trio.queue.embedded import open_embedded_server
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.settlement import released
from emp_trio.queue.worker_queue import LeaseRef, WorkerQueue
from emp_trio.secrets import Secret
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import CAPABILITIES, Library

LIMIT = 60.0
AOF = {"aof_enabled": "1", "connected_slaves": "0"}
DISK, REPLICA = "on its disk", "in a replica"


@pytest.mark.parametrize(
    ("info", "config", "waitaof", "places"),
    [
        (AOF, {}, True, [DISK]),
        (AOF | {"connected_slaves": "2"}, {}, True, [DISK, REPLICA]),
        (AOF | {"connected_slaves": "1"}, {}, False, [REPLICA]),
        ({"aof_enabled": "0", "connected_slaves": "1"}, {}, True, [REPLICA]),
        (AOF, {"appendfsync": "always"}, False, []),
        (AOF, {"appendfsync": "everysec"}, False, None),
        ({"aof_enabled": "0"}, {"appendfsync": "always"}, True, None),
        ({}, {}, True, None),
    ],
)
def test_what_is_waited_for(
    info: Mapping[str, str], config: Mapping[str, str], waitaof: bool, places: list[str] | None
) -> None:
    if places is None:
        with pytest.raises(ConfigError, match="neither a replica nor an append-only file"):
            waits_for(info, config, waitaof=waitaof)
    else:
        assert [wait.place for wait in waits_for(info, config, waitaof=waitaof)] == places


@pytest.mark.parametrize(("reply", "reached"), [(0, False), (1, True), (2, True), ([0, 1], False), ([1, 0], True)])
def test_what_a_reply_says(reply: Any, reached: bool) -> None:
    assert Wait(("WAIT", 1), REPLICA).reached(reply) is reached


async def test_a_server_that_keeps_nothing_is_refused(valkey: str) -> None:
    with pytest.raises(ConfigError, match="--durable can't be kept"):
        async with open_queue(valkey, durable=True):
            pass


async def test_one_wait_stands_for_all_who_ask(valkey: str, lib: Library) -> None:
    async with open_bridge(RedisSettings(url=Secret(valkey))) as port, trio.open_nursery() as nursery:
        writes = DurableWrites(port, (Wait(("WAITAOF", 0, 0), DISK),), limit=1.0)
        told: list[EmpTrioError | None] = []
        for _ in range(50):
            writes.when_durable(told.append)
        lib.db.config_resetstat()
        nursery.start_soon(writes.run)
        with trio.fail_after(LIMIT):
            while len(told) < 50:
                await trio.sleep(0.01)
        assert lib.db.info("commandstats")["cmdstat_waitaof"]["calls"] == 1
        nursery.cancel_scope.cancel()


async def test_a_replica_that_does_not_follow_leaves_the_outcome_open_and_it_is_repeated(tmp_path: Path) -> None:
    with valkey_server() as url, valkey_server("--replicaof", f"127.0.0.1 {url.rpartition(':')[2]}") as other:
        db: Any = redis.Redis.from_url(url, decode_responses=True)
        replica: Any = redis.Redis.from_url(other)
        with trio.fail_after(LIMIT):
            while db.info("replication").get("slave0", {}).get("state") != "online":
                await trio.sleep(0.01)
        settings = RedisSettings(url=Secret(url), reply_timeout=4.0)
        async with open_bridge(settings) as bridge, open_durable_writes(settings) as writes:
            await library.ensure(bridge)
            await writes.wait()
            pid = replica.info("server")["process_id"]
            queue = Queue(bridge, patience=0.2, durable=writes)
            worker_queue = WorkerQueue(bridge, durable=writes)
            await queue.submit("comfyui", job_id="j")
            lease = await _claimed(worker_queue)
            _stop(pid, signal.SIGSTOP)
            try:
                with pytest.raises(OutcomeUnknown, match="not in a replica"):
                    await queue.submit("comfyui", job_id="k")
                told: list[bool] = []
                worker_queue.settle_soon(lease, "m1", released(), told.append)
                with pytest.raises(OutcomeUnknown, match="not in a replica"):
                    await worker_queue.settle(lease, "m1", released())
                assert told == [False]
            finally:
                _stop(pid, signal.SIGCONT)
            assert await worker_queue.retry_until_accepted(lambda: worker_queue.settle(lease, "m1", released()))
            assert replica.hget("job:j", "status") == b"pending"
        db.close()
        replica.close()


def _stop(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


async def _claimed(worker_queue: WorkerQueue) -> LeaseRef:
    (claim,) = (await worker_queue.claim(json.dumps(CAPABILITIES).encode(), "m1", [("w1", "n")], lease=60.0)).jobs
    return LeaseRef(claim.job_id, claim.token)


async def test_what_counts_as_submitted_is_there_after_a_kill(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as server:
        with redis.Redis.from_url(server.tcp_url) as db:
            db.config_set("appendfsync", "everysec")
        with trio.fail_after(LIMIT):
            async with open_queue(server.tcp_url, durable=True) as queue:
                job_id = await queue.submit("comfyui")
                _stop(server.pid, signal.SIGKILL)
    async with open_embedded_server(tmp_path) as server, open_queue(server.tcp_url) as queue:
        assert await queue.job(job_id) is not None


async def test_a_full_server_does_not_keep_outcomes_from_being_durable(bridge: Bridge, lib: Library) -> None:
    writes = DurableWrites(bridge, (Wait(("WAITAOF", 0, 0), DISK),), limit=1.0)
    lib.db.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerRefused, match="OOM"):
            await bridge.call("SET", "k", "v")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writes.run)
            with pytest.raises(OutcomeUnknown, match="not on its disk"):  # this one waits for no disk at all
                await writes.wait()
            nursery.cancel_scope.cancel()
        assert lib.db.get("emp:durable") == "1"
    finally:
        lib.db.config_set("maxmemory", 0)
