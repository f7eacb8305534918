"""``emp-trio worker`` as an operator runs it: a real process, the packaged mapping, the log on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.testing.sim_http import open_simulated_http
from emp_trio.testing.valkey import valkey_server
from tests.queue.support import Ear
from tests.worker.processes import ACTORS, open_worker
from tests.worker.support import LIMIT, client, eventually, submit, until_status


async def test_several_types_in_one_process_from_submit_to_result(valkey: str, db: Any, ear: Ear) -> None:
    async with (
        open_simulated_http() as service,
        open_worker(
            valkey,
            "--workers",
            "mock:3,simulation-http:2",
            "--machine-id",
            "box",
            SIMULATION_HTTP_URL=service.base_url,
            POLLING_INTERVAL="0.05",
        ) as worker,
    ):
        assert worker.events("machine.ready")[0]["slots"] == {"mock": 3, "simulation-http": 2}
        ids = {f"box-worker-mock-{n}" for n in range(3)} | {f"box-worker-simulation-http-{n}" for n in range(2)}
        assert db.smembers("workers:active") == ids
        mock = submit(db, "mock", {"delay_ms": 1, "test_data": {"seen": True}})
        simulated = submit(db, "simulation", {"simulate": {"seconds": 0.1, "steps": 2}})
        await until_status(db, mock, "completed")
        await until_status(db, simulated, "completed")
        worker.signal(signal.SIGTERM)
        assert await worker.code() == 0
    done = {m["job_id"]: m for _, m in ear.heard("complete_job")}
    assert done[mock]["result"]["data"]["test_data"] == {"seen": True}
    assert done[mock]["worker_id"].startswith("box-worker-mock-")
    assert done[simulated]["worker_id"].startswith("box-worker-simulation-http-")
    assert done[simulated]["result"]["service_metadata"]["service_job_id"] == "sim-1"
    assert db.smembers("workers:active") == set()


async def test_slot_ids_are_the_same_in_every_life(valkey: str, db: Any) -> None:
    for _ in range(2):
        async with open_worker(valkey, "--workers", "mock:2", MACHINE_ID="box"):
            assert db.smembers("workers:active") == {"box-worker-mock-0", "box-worker-mock-1"}


async def test_a_process_manager_may_start_it_as_exactly_one_worker(valkey: str, db: Any) -> None:
    env = {"WORKER_ID": "abc-1", "CONNECTORS": "mock", "WORKERS": "comfyui:4,openai:2"}
    async with open_worker(valkey, **env):
        assert db.smembers("workers:active") == {"abc-1"}
        job = await until_status(db, submit(db, "mock", {"delay_ms": 1}), "completed")
        assert job["worker_id"] == "abc-1"
    await eventually(lambda: True)


async def test_every_line_of_a_job_names_job_slot_and_attempt_and_none_shows_its_payload(valkey: str, db: Any) -> None:
    words = ("--mapping", ACTORS, "--workers", "careless:2,mock:2", "--log-level", "debug", "--machine-id", "box")
    async with open_worker(valkey, *words) as worker:
        good = submit(db, "mock", {"delay_ms": 1, "test_data": "PRIVATE-PROMPT"})
        bad = submit(db, "mock", {"delay_ms": 1, "should_fail": True, "test_data": "PRIVATE-PROMPT"}, max_retries=1)
        crash = submit(db, "careless", {"prompt": "PRIVATE-PROMPT"}, max_retries=1)
        await worker.until("job.completed", job=good)
        await worker.until("job.failed", job=bad)
        await worker.until("connector.error", job=crash)
        worker.signal(signal.SIGTERM)
        assert await worker.code() == 0
    for job_id in (good, bad, crash):
        slot = db.hget(f"job:{job_id}", "worker_id")
        lines = [line for line in worker.logs if line.get("job") == job_id]
        assert all((line["slot"], line["attempt"]) == (slot, 1) for line in lines)
        assert all({"timestamp", "level", "event", "logger"} <= line.keys() for line in lines)
    assert not [
        line for line in worker.logs if line["event"].startswith(("job.", "connector.error")) and "job" not in line
    ]
    assert "PRIVATE-PROMPT" not in json.dumps(worker.logs) + worker.err
    assert worker.err == ""  # JSON lines and nothing else


async def test_a_wrong_password_ends_it_with_a_reason_that_does_not_show_it(tmp_path: Path) -> None:
    with valkey_server(password="correct-horse") as url:
        wrong = url.replace("correct-horse", "hunter2-battery")
        async with open_worker(wrong, "--workers", "mock", ready=False) as worker:
            assert await worker.code() == 2
        said = json.dumps(worker.logs) + worker.err
        assert "refuses the login" in said
        assert "hunter2" not in said
        assert "Traceback" not in said
        async with open_worker(url, "--workers", "mock") as worker:
            db = client(url)
            await until_status(db, submit(db, "mock", {"delay_ms": 1, "test_data": "correct-horse"}), "completed")
            assert "correct-horse" not in str(db.hgetall("jobs:completed"))
            db.close()
        assert "correct-horse" not in json.dumps(worker.logs) + worker.err


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["--workers", "mock", "--drain", "-1"], {}, "drain"),
        (["--workers", "mock", "--drain", "nan"], {}, "drain"),
        (["--workers", "mock", "--machine-id", "a:b"], {}, "MACHINE_ID"),
        (["--workers", "mokc"], {}, "did you mean"),
        ([], {}, "WORKERS"),
        ([], {"WORKER_ID": "a.b", "CONNECTORS": "mock"}, "WORKER_ID"),
        (
            ["--workers", "mock"],
            {"JOB_TIMEOUT_MINUTES": "soon", "EMP_TRIO_LEASE_SECONDS": "-3"},
            "EMP_TRIO_LEASE_SECONDS",
        ),
    ],
    ids=str,
)
async def test_a_wrong_configuration_ends_it_before_it_connects(
    words: list[str], environment: dict[str, str], said: str
) -> None:
    async with open_worker("redis://127.0.0.1:1", *words, ready=False, **environment) as worker:
        assert await worker.code() == 2
    assert said in worker.err
    assert "Traceback" not in worker.err


async def test_levels_of_the_fleet_are_understood(valkey: str) -> None:
    async with open_worker(valkey, "--workers", "mock", LOG_LEVEL="verbose") as worker:
        assert worker.logs
    async with open_worker(valkey, "--workers", "mock", ready=False, LOG_LEVEL="warn") as worker:
        db = client(valkey)
        await eventually(lambda: db.scard("workers:active"))
        db.close()
        assert worker.logs == []


async def test_a_log_that_nobody_reads_does_not_stop_the_jobs(valkey: str, db: Any) -> None:
    """A pipe holds 64 KiB; what is more than that waits, and the worker does not."""
    words = [sys.executable, "-m", "emp_trio", "worker", "--workers", "mock:20", "--log-level", "debug", "--drain", "1"]
    environment = {**os.environ, "HUB_REDIS_URL": valkey}
    process = await trio.lowlevel.open_process(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    try:
        jobs = [submit(db, "mock", {"delay_ms": 1}) for _ in range(800)]
        for job_id in jobs:
            await until_status(db, job_id, "completed")
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(LIMIT):
            assert await process.wait() == 0
        assert process.stderr is not None
        log = b"".join([piece async for piece in process.stderr])
        assert log.count(b'"job.completed"') < 800  # the pipe was full
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
