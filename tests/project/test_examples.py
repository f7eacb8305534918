"""The examples do what they say, with a real worker."""

from __future__ import annotations

import sys

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from emp_trio.queue.client import open_queue
from emp_trio.testing.serve import open_server
from tests.cli.client_support import open_command, run_command
from tests.project.support import ROOT

EXAMPLES = ROOT / "examples"


async def test_a_program_submits_and_watches(valkey: str) -> None:
    async with open_command("worker", "--workers", "mock:1", url=valkey) as worker:
        await worker.until("err", "machine.ready")
        done = await trio.run_process([sys.executable, EXAMPLES / "submit_and_watch.py", valkey], capture_stdout=True)
        worker.interrupt()
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith(("queued", "progress"))
    assert lines[-2:] == ["completed 100 %", "hello"]


async def test_a_connector_of_ones_own_runs_jobs(valkey: str) -> None:
    async def shout(request: Request) -> JSONResponse:
        return JSONResponse({"shouted": (await request.json())["text"].upper()})

    words = ("--mapping", str(EXAMPLES / "shouting-mapping.json"))
    async with open_server(Starlette(routes=[Route("/shout", shout, methods=["POST"])])) as service:
        env = {"PYTHONPATH": str(EXAMPLES), "SHOUTING_URL": service}
        async with (
            open_command("worker", "--workers", "shouting:1", *words, url=valkey, env=env) as worker,
            open_queue(valkey) as queue,
        ):
            await worker.until("err", "machine.ready")
            good, bad = await queue.submit("shout", {"text": "hello"}), await queue.submit("shout", {})
            for job_id in (good, bad):
                async with queue.watch(job_id) as events:
                    async for _ in events:
                        pass
            worker.interrupt()
            shouted, failed = await queue.job(good), await queue.job(bad)
        assert shouted is not None
        assert failed is not None
        assert (shouted.result or {})["data"] == {"text": "HELLO"}
        assert (failed.state, failed.failure_reason) == ("failed", "missing_required_field")
        code, out, _ = await run_command("explain", "shout", *words, env=env)
        assert code == 0
        assert "ShoutingConnector" in out


async def test_the_connector_that_authors_read_is_found() -> None:
    env = {"PYTHONPATH": str(EXAMPLES), "ATELIER_API_KEY": "key"}
    code, out, _ = await run_command(
        "explain", "painting", "--mapping", str(EXAMPLES / "atelier-mapping.json"), env=env
    )
    assert code == 0
    assert "AtelierConnector" in out
    assert "0.5" in out
