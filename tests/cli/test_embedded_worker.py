"""``emp-trio worker --embedded``: a whole installation on one machine, whose jobs outlive it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis
import trio

from emp_trio.queue.client import Queue, open_queue
from tests.cli.client_support import Running, open_command, run_command


@asynccontextmanager
async def installation(state: Path) -> AsyncIterator[tuple[Running, Queue, str]]:
    """The command, ready; a client of its queue; the queue's URL as the command printed it."""
    words = ("worker", "--embedded", "--workers", "mock:2", "--state", str(state), "--log-format", "json")
    async with open_command(*words, env={"MACHINE_ID": "box"}) as worker:
        await worker.until("err", "machine.ready")
        url = worker.out.rpartition("HUB_REDIS_URL=")[2].strip()
        async with open_queue(url) as queue:
            yield worker, queue, url


def server_of(url: str) -> int:
    with redis.Redis.from_url(url) as db:
        return int(db.info("server")["process_id"])


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_jobs_are_there_again_after_a_restart_and_no_process_is_left(tmp_path: Path) -> None:
    async with installation(tmp_path / "state") as (worker, queue, url):
        done = await queue.submit("mock", {"delay_ms": 1, "test_data": "seen"})
        async with queue.watch(done) as events:
            assert [event.kind async for event in events][-1] == "completed"
        waiting = await queue.submit("nobody_runs_this", {"n": 1})
        server = server_of(url)
        worker.interrupt()
        assert await worker.code() == 0
    assert not runs(server)
    async with installation(tmp_path / "state") as (worker, queue, _):
        kept, new = await queue.job(done), await queue.job(waiting)
        worker.interrupt()
        assert await worker.code() == 0
    assert kept is not None
    assert (kept.state, (kept.result or {})["data"]["test_data"]) == ("completed", "seen")
    assert new is not None
    assert (new.state, new.payload) == ("pending", {"n": 1})


async def test_the_server_outlives_the_drain_of_the_worker(tmp_path: Path) -> None:
    """A running job is settled before its queue goes."""
    async with installation(tmp_path / "state") as (worker, queue, _):
        job_id = await queue.submit("mock", {"delay_ms": 700})
        async with queue.watch(job_id) as events:
            async for event in events:
                if event.kind == "progress":
                    break
        worker.interrupt()
        assert await worker.code() == 0
    async with installation(tmp_path / "state") as (worker, queue, _):
        job = await queue.job(job_id)
        worker.interrupt()
    assert job is not None
    assert (job.state, job.attempt) == ("completed", 1)


async def test_a_server_that_dies_ends_the_worker_with_a_reason(tmp_path: Path) -> None:
    async with installation(tmp_path / "state") as (worker, _, url):
        os.kill(await trio.to_thread.run_sync(server_of, url), signal.SIGKILL)
        assert await worker.code() == 1
    assert "the embedded server ended by itself" in worker.err
    assert "Traceback" not in worker.err


async def test_embedded_and_a_named_redis_exclude_each_other(tmp_path: Path) -> None:
    code, _, err = await run_command("worker", "--embedded", "--workers", "mock", "--redis", "redis://localhost")
    assert code == 2
    assert "leave --redis out" in err
