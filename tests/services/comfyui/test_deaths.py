"""A server that is killed and started again at random moments, under many jobs: none is lost, none comes twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError
from emp_trio.services.comfyui.graph import prompt_id_of
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.support import open_comfyui, sleeping
from tests.services.support import job, stored

JOBS = 50
DEATHS = 200 if os.environ.get("EMP_TRIO_HEAVY") else 30


async def test_a_server_that_dies_again_and_again_loses_no_job(
    connector_context: ConnectorContext, tmp_path: Path
) -> None:
    """4.5, 4.4: every job ends in exactly one result, after as many attempts as it takes."""
    chance = random.Random(20240701)
    results: Counter[str] = Counter()
    attempts: Counter[str] = Counter()
    final: list[EmpTrioError] = []
    follow = {"poll_soon": 0.02, "poll_interval": 0.05, "history_wait": 0.1, "outage_timeout": 0.1}

    async def finish(connector: Any, job_id: str, places: trio.CapacityLimiter) -> None:
        checkpoint = None
        while True:
            attempts[job_id] += 1
            context = FakeAttempt()
            workflow = sleeping(0.01, 2, salt=len(job_id), preview=False)
            attempt = job({"workflow": workflow}, id=job_id, attempt=attempts[job_id], checkpoint=checkpoint)
            try:
                async with places:
                    result = await run_job(connector, attempt, context)
            except EmpTrioError as error:
                final.extend([] if error.retry else [error])
                checkpoint = context.checkpoint or checkpoint
                await trio.sleep(0.01)
                continue
            assert result.success
            assert len(result.output_files) == 1
            results[job_id] += 1
            return

    async def kill(fake: FakeComfyUI) -> None:
        for _ in range(DEATHS):
            await trio.sleep(chance.uniform(0, 0.12))
            await fake.kill()
            await trio.sleep(chance.uniform(0, 0.02))
            await fake.start()

    with trio.fail_after(60):
        async with open_fake_comfyui() as fake:
            opening = open_comfyui(fake, connector_context, follow=follow, http={"max_retries": 0}, quiet=False)
            async with opening as connector, trio.open_nursery() as nursery:
                nursery.start_soon(kill, fake)
                places = trio.CapacityLimiter(8)
                for number in range(JOBS):
                    nursery.start_soon(finish, connector, f"job-{number}", places)
            assert final == []
            assert set(results.values()) == {1}
            assert len(results) == JOBS
            assert len(stored(tmp_path / "assets")) == JOBS
            assert max(attempts.values()) > 1
            # A prompt runs again only where a restart has forgotten it.
            for number in range(JOBS):
                assert fake.executions[prompt_id_of(f"job-{number}")] <= attempts[f"job-{number}"]
