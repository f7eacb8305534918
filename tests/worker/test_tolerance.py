"""Jobs as the fleet's clients really write them, through a whole worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.saves_assets import SavesAssets
from emp_trio.services.connector import Connector
from emp_trio.services.mock import MockConnector
from emp_trio.services.simulation.in_process import SimulationConnector
from emp_trio.services.simulation.job import SimulationSettings
from emp_trio.testing.storage import local_storage
from tests.worker.support import DONE, Play, open_machine, submit, until_status

MOCK = (MockConnector, MockConnector.Settings())
QUICK = (SimulationConnector, SimulationConnector.Settings(simulation=SimulationSettings(processing_time=0, steps=1)))


@pytest.mark.parametrize("payload", ["[1,2]", '"hello"', "5", "null", "[]", "true"])
@pytest.mark.parametrize("ctx", ['"hello"', "[1]", "7", "null"])
async def test_a_payload_of_any_kind_runs_where_nothing_of_it_is_needed(
    valkey: str, db: Any, payload: str, ctx: str
) -> None:
    async with open_machine(valkey, {"mock": MOCK, "simulation": QUICK}):
        for job_type in ("mock", "simulation"):
            job_id = submit(db, job_type, tell=False, ctx=ctx, text=payload)
            await until_status(db, job_id, "completed")


async def test_a_connector_that_needs_fields_fails_it_and_names_the_field(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"t": Play()}):
        job_id = submit(db, "t", tell=False, text="[1,2]")
        job = await until_status(db, job_id, "failed")
    assert job["error"] == "payload must be a JSON object, not a list"
    assert (job["failure_type"], job["failure_reason"]) == ("validation_error", "invalid_format")


async def test_a_ctx_that_is_no_object_hurts_only_jobs_that_store_something(
    valkey: str, db: Any, tmp_path: Path
) -> None:
    class Saves(SavesAssets, Connector):
        async def run(self, job: Job, context: AttemptContext) -> JobResult:
            await self.assets.save(b"text", job, context, media_type="text/plain")
            return DONE

    storage = local_storage(tmp_path)
    async with open_machine(valkey, {"t": (Saves, Saves.Settings())}, storage=storage):
        job_id = submit(db, "t", tell=False, ctx='"hello"')
        job = await until_status(db, job_id, "failed")
        await until_status(db, submit(db, "t"), "completed")
    assert "ctx must be a JSON object, not a text" in job["error"]


async def test_a_mock_job_that_shall_fail_has_all_its_attempts(valkey: str, db: Any) -> None:
    async with open_machine(valkey, {"mock": MOCK}):
        job_id = submit(db, "mock", {"should_fail": "true", "delay_ms": "0"}, max_retries=2)
        job = await until_status(db, job_id, "failed")
    assert (job["retry_count"], job["failure_type"], job["failure_reason"]) == ("2", "service_error", "service_down")
    assert json.loads(db.hget("jobs:failed", job_id))["retry_count"] == 2
