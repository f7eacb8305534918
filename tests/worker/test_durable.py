"""``emp-trio worker --durable``: no outcome counts before it outlives the server."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import redis
import trio

from emp_trio.queue.embedded import open_embedded_server
from tests.queue.support import listening
from tests.worker.processes import open_worker
from tests.worker.support import Play, client, eventually, open_machine, submit, until_status


async def test_jobs_run_and_their_outcomes_are_on_the_disk(tmp_path: Path) -> None:
    async with open_embedded_server(tmp_path) as server:
        db = client(server.tcp_url)
        async with open_worker(server.tcp_url, "--workers", "mock:5", "--durable") as worker:
            for job_id in [submit(db, "mock", {"delay_ms": 1}) for _ in range(50)]:
                await until_status(db, job_id, "completed")
            assert db.info("commandstats")["cmdstat_waitaof"]["calls"] <= 51  # one asks whether there is such a command
            worker.signal(signal.SIGTERM)
            assert await worker.code() == 0
        db.close()


async def test_an_outcome_is_repeated_until_it_is_on_the_disk_and_published_once(tmp_path: Path) -> None:
    play = Play()
    play.finish.set()
    quick = {"reply_timeout": 1.0}
    async with open_embedded_server(tmp_path) as server:
        db = client(server.tcp_url)
        with listening(server.tcp_url) as ear:
            async with open_machine(server.tcp_url, {"t": play}, durable=True, redis_settings=quick):
                db.config_set("appendonly", "no")  # from now on nothing can be waited for
                job_id = submit(db, "t")
                refused = waits(db)
                await eventually(lambda: waits(db) > refused + 2)
                assert db.hget(f"job:{job_id}", "status") == "completed"
                db.config_set("appendonly", "yes")
                await eventually(lambda: db.info("commandstats")["cmdstat_waitaof"]["failed_calls"] < waits(db) - 1)
                settled = waits(db)
                await trio.sleep(1.0)
                assert waits(db) == settled
            assert len(ear.heard("complete_job")) == 1
        job = db.hgetall(f"job:{job_id}")
        assert (job["status"], job["retry_count"], job["attempt"]) == ("completed", "0", "1")
        db.close()


def waits(db: Any) -> int:
    """How often WAITAOF was called."""
    return int(db.info("commandstats")["cmdstat_waitaof"]["calls"])


async def test_a_server_that_keeps_nothing_is_refused(valkey: str) -> None:
    async with open_worker(valkey, "--workers", "mock", "--durable", ready=False) as worker:
        assert await worker.code() == 2
    assert "--durable can't be kept" in worker.err
    with redis.Redis.from_url(valkey) as db:
        assert db.scard("workers:active") == 0
