"""A server that is full, gone, or back without its data: typed errors, nothing lost that the server did not lose."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import trio

from emp_trio.errors import NotSent, OutcomeUnknown, ServerRefused
from emp_trio.jobs import JobResult
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.client import Queue
from emp_trio.queue.embedded import free_port, server_command
from emp_trio.queue.job_hash import read_job
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.settlement import Identity, completed, failed, released
from emp_trio.queue.worker_queue import LeaseRef, WorkerQueue
from emp_trio.secrets import Secret
from tests.queue.support import CAPABILITIES, Library

LIMIT = 60.0
TEXT = json.dumps(CAPABILITIES).encode()
WHO = Identity(worker_id="w1", machine_id="m1")


@contextmanager
def full(lib: Library) -> Iterator[None]:
    """The server is above its memory limit and refuses to grow."""
    lib.db.config_set("maxmemory-policy", "noeviction")
    lib.db.config_set("maxmemory", 1)
    try:
        yield
    finally:
        lib.db.config_set("maxmemory", 0)


async def claim(worker_queue: WorkerQueue, *workers: str) -> dict[str, tuple[LeaseRef, dict[str, bytes]]]:
    claims = await worker_queue.claim(TEXT, "m1", [(w, f"n{time.monotonic_ns()}") for w in workers], lease=15)
    return {c.job_id: (LeaseRef(c.job_id, c.token), c.fields) for c in claims.jobs}


async def test_full_server_takes_no_new_jobs_and_says_so(bridge: Bridge, lib: Library) -> None:
    queue = Queue(bridge, patience=0.5)
    with full(lib):
        began = trio.current_time()
        with trio.fail_after(LIMIT), pytest.raises(ServerRefused, match="maxmemory") as caught:
            await queue.submit("comfyui", {"prompt": "p"})
        assert caught.value.code == "OOM"
        assert trio.current_time() - began < 2
        assert lib.db.dbsize() == 0


async def test_submit_gets_through_when_a_full_server_has_room_again(bridge: Bridge, lib: Library) -> None:
    queue = Queue(bridge, patience=LIMIT)
    async with trio.open_nursery() as nursery:
        with full(lib):
            nursery.start_soon(queue.submit, "comfyui")
            await trio.sleep(0.3)
            assert lib.db.dbsize() == 0
    assert lib.db.zcard("jobs:pending") == 1


async def test_full_server_lets_running_jobs_end(worker_queue: WorkerQueue, lib: Library) -> None:
    for name in ("done", "broken", "again", "back", "stopped", "crashed"):
        lib.submit(name)
    jobs = await claim(worker_queue, *(f"w{n}" for n in range(6)))
    with full(lib):
        refused: list[str] = []
        worker_queue.start([lease for lease, _ in jobs.values()], "", refused.extend)
        assert await worker_queue.renew([lease for lease, _ in jobs.values()], lease=15) == {}
        await worker_queue.save_checkpoint(jobs["back"][0], b'{"id":1}')
        with pytest.raises(ServerRefused):  # waits until there is room
            await claim(worker_queue, "w9")

        async def end(name: str, make: Callable[[Any], Any]) -> None:
            lease, fields = jobs[name]
            assert await worker_queue.settle(lease, "m1", make(read_job(name, 1, fields)))

        now = time.time()
        await end("done", lambda job: completed(job, JobResult(success=True), WHO, now=now))
        failure = ServerRefused("x", code="y").failure
        await end("again", lambda job: failed(job, failure, WHO, now=now, random=0))
        await end("broken", lambda job: failed(_last(job), failure, WHO, now=now, random=0))
        await end("back", lambda job: released())
        assert (await worker_queue.function("cancel", "stopped", "r"))[0] == b"cancelled"
        lib.db.config_set("maxmemory", 0)
        lib.expire_leases()
        lib.db.config_set("maxmemory", 1)
        assert (await worker_queue.reap()).requeued == ("crashed",)
        assert (
            await worker_queue.heartbeat(
                "m1",
                connected_at="",
                fresh=True,
                statuses=b"{}",
                capabilities=b'{"t":"{}"}',
                slots=b'[["w1","t",0,0]]',
                messages=(),
            )
            == []
        )
        assert refused == []
    states = {name: lib.job(name)["status"] for name in jobs}
    assert states == {
        "done": "completed",
        "broken": "failed",
        "again": "pending",
        "back": "pending",
        "stopped": "failed",
        "crashed": "pending",
    }
    assert lib.job("crashed")["retry_count"] == "1"  # it had been started


def _last(job: Any) -> Any:
    return msgspec.structs.replace(job, max_attempts=1)


class Server:
    """A server of this test's own on a fixed port, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = server_command(self.folder, self.port, keep=True, extra=("--appendfsync", "always"))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + LIMIT
        with redis.Redis.from_url(self.url) as db:
            while True:
                try:
                    db.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                else:
                    return

    def stop(self, *, wipe: bool = False) -> None:
        """Stop it; what it has written stays unless it is to be wiped."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
        if wipe:
            shutil.rmtree(self.folder)
            self.folder.mkdir()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


async def again(worker_queue: WorkerQueue, verb: Callable[[], Any]) -> Any:
    with trio.fail_after(LIMIT):
        return await worker_queue.retry_until_accepted(verb)


@pytest.mark.parametrize("kept", [True, False])
async def test_restart_of_the_server_with_and_without_its_data(server: Server, kept: bool) -> None:
    settings = RedisSettings(url=Secret(server.url), longest_pause=0.1)
    async with open_bridge(settings) as bridge:
        await library.ensure(bridge)
        worker_queue, queue = WorkerQueue(bridge, pause=0.01), Queue(bridge)
        await queue.submit("comfyui", job_id="running", priority=60)
        await queue.submit("comfyui", job_id="waiting")
        lease = (await claim(worker_queue, "w1"))["running"][0]

        await trio.to_thread.run_sync(lambda: server.stop(wipe=not kept))
        with pytest.raises((NotSent, OutcomeUnknown)):
            await worker_queue.reap()
        await trio.to_thread.run_sync(server.start)

        assert await again(worker_queue, lambda: worker_queue.renew([lease], lease=15)) == (
            {} if kept else {"running": "lost"}
        )
        assert await again(worker_queue, lambda: worker_queue.settle(lease, "m1", released())) is kept
        assert sorted(await claim(worker_queue, "w1", "w2")) == (["running", "waiting"] if kept else [])
        assert await queue.submit("comfyui", job_id="new") == "new"
        assert list(await claim(worker_queue, "w3")) == ["new"]


async def test_submit_and_settle_outlast_the_absence_of_the_server(server: Server) -> None:
    settings = RedisSettings(url=Secret(server.url), longest_pause=0.1)
    async with open_bridge(settings) as bridge:
        await library.ensure(bridge)
        worker_queue, queue = WorkerQueue(bridge, pause=0.01), Queue(bridge, patience=LIMIT)
        await queue.submit("comfyui", job_id="j")
        lease = (await claim(worker_queue, "w1"))["j"][0]
        await trio.to_thread.run_sync(server.stop)
        results: list[object] = []

        async def settle() -> None:
            results.append(
                await worker_queue.retry_until_accepted(lambda: worker_queue.settle(lease, "m1", released()))
            )

        async def submit() -> None:
            results.append(await queue.submit("comfyui", job_id="k"))

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(settle)
                nursery.start_soon(submit)
                await trio.sleep(0.2)  # both have tried, and tried again
                assert results == []
                await trio.to_thread.run_sync(server.start)
        assert sorted(results, key=str) == [True, "k"]
        assert sorted(await claim(worker_queue, "w1", "w2")) == ["j", "k"]


async def test_client_gives_up_after_its_patience(server: Server) -> None:
    async with open_bridge(RedisSettings(url=Secret(server.url), longest_pause=0.1)) as bridge:
        await library.ensure(bridge)
        queue = Queue(bridge, patience=0.3)
        await trio.to_thread.run_sync(server.stop)
        for call in (
            lambda: queue.submit("t"),
            lambda: queue.cancel("j"),
            lambda: queue.retry("j"),
            lambda: queue.job("j"),
            queue.jobs,
            queue.workers,
        ):
            with trio.fail_after(LIMIT), pytest.raises((NotSent, OutcomeUnknown)):
                await call()


async def test_a_pause_of_the_server_is_sat_out(bridge: Bridge, lib: Library) -> None:
    lib.db.execute_command("CLIENT", "PAUSE", "400", "ALL")
    began = trio.current_time()
    assert await bridge.call("PING") == b"PONG"
    assert trio.current_time() - began > 0.2


async def test_connection_killed_by_the_server(bridge: Bridge, lib: Library) -> None:
    await library.ensure(bridge)
    worker_queue = WorkerQueue(bridge, pause=0.01)
    for number in range(5):
        lib.db.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await again(
            worker_queue, partial(worker_queue.function, "submit", f"j{number}", "n", "{}", "service_required", "t")
        )
    assert lib.db.zcard("jobs:pending") == 5


async def test_replica_refuses_and_works_when_it_is_made_master(bridge: Bridge, lib: Library) -> None:
    queue = Queue(bridge, patience=0.3)
    lib.db.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(ServerRefused) as caught:
            await queue.submit("comfyui")
        assert caught.value.code in ("READONLY", "MASTERDOWN")
    finally:
        lib.db.replicaof("NO", "ONE")
    assert await queue.submit("comfyui")
