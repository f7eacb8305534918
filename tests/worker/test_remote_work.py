"""Work in a real service: stopped there when the user says so, left to the next attempt when only the worker goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.queue.client import open_queue
from emp_trio.services.simulation.http import SimulationHttpConnector
from emp_trio.testing.sim_http import SimulatedHttpService, open_simulated_http
from tests.queue.support import Ear
from tests.worker.support import Workers, eventually, open_machine, submit, until_status

LONG = {"simulate": {"seconds": 60.0, "steps": 600}}


@pytest.fixture
async def service() -> AsyncIterator[SimulatedHttpService]:
    """A service of the test's own."""
    async with open_simulated_http() as made:
        yield made


def served_by(service: SimulatedHttpService) -> Workers:
    settings = SimulationHttpConnector.Settings(
        http=HttpSettings(base_url=service.base_url), polling=PollingSettings(interval=0.05, attempts=10_000)
    )
    return {"sim": (SimulationHttpConnector, settings)}


async def test_a_cancel_stops_the_work_in_the_service(valkey: str, db: Any, service: SimulatedHttpService) -> None:
    async with open_machine(valkey, served_by(service)), open_queue(valkey) as queue:
        job_id = await queue.submit("sim", LONG)
        await service.until_started(1)
        await eventually(lambda: db.hget(f"job:{job_id}", "checkpoint"))
        told = trio.current_time()
        await queue.cancel(job_id)
        await eventually(lambda: service.states() == ["cancelled"])
        assert trio.current_time() - told < 1.0


@pytest.mark.parametrize("how", ["drain", "lost lease"])
async def test_the_next_worker_adopts_what_runs_in_the_service(
    valkey: str, db: Any, ear: Ear, service: SimulatedHttpService, how: str
) -> None:
    """The service does (and bills) the work once."""
    async with open_machine(valkey, served_by(service), machine_id="old", drain=0.05) as old:
        job_id = submit(db, "sim", {"simulate": {"seconds": 1.2, "steps": 12}})
        await service.until_started(1)
        await eventually(lambda: db.hget(f"job:{job_id}", "checkpoint"))
        if how == "drain":
            old.shutdown.stop("deploy")
        else:
            db.hset(f"job:{job_id}", mapping={"lease_token": "", "worker_id": "", "status": "pending"})
            db.zrem("emp:leases", job_id)
            await eventually(lambda: len(old.leases) == 0)
            old.shutdown.stop("deploy")
            await eventually(lambda: not db.exists("worker:old-worker-sim-0"))
            db.zadd("jobs:pending", {job_id: 5e16})
    async with open_machine(valkey, served_by(service), machine_id="new"):
        job = await until_status(db, job_id, "completed")
    assert job["attempt"] == "2"
    assert service.states() == ["success"]
    assert [m["result"]["service_metadata"]["service_job_id"] for _, m in ear.heard("complete_job")] == ["sim-1"]


async def test_the_last_deadline_stops_the_work_in_the_service(
    valkey: str, db: Any, service: SimulatedHttpService
) -> None:
    async with open_machine(valkey, served_by(service), job_timeout=0.8):
        job = await until_status(db, submit(db, "sim", LONG, max_retries=1), "failed")
    assert job["failure_type"] == "timeout"
    assert service.states() == ["cancelled"]


async def test_a_service_that_comes_and_goes(valkey: str, db: Any) -> None:
    """Jobs wait while it is away, and use no attempt for that."""
    async with open_simulated_http() as first:
        port = int(first.base_url.rpartition(":")[2])
        workers = served_by(first)
    async with open_machine(valkey, workers, health_retry=0.05) as machine:
        job_id = submit(db, "sim", {"simulate": {"seconds": 0.05, "steps": 1}})
        assert not machine.supervisors["sim-service"].usable
        async with open_simulated_http(port):
            job = await until_status(db, job_id, "completed")
    assert job["retry_count"] == "0"
