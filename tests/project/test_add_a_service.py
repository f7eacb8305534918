"""The service that is added without code does what its page says, with a real worker."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.queue.client import Queue, open_queue
from emp_trio.queue.job_info import JobInfo
from emp_trio.testing.png import make_png
from emp_trio.testing.serve import open_server
from tests.cli.client_support import open_command, run_command
from tests.project.support import ROOT

EXAMPLE = ROOT / "examples" / "rest-service.json"
PAGE = ROOT / "docs" / "add-a-service.md"
KEY = "studio-key-of-a-test"
WORDS = ("--workers", "studio:2", "--mapping", str(EXAMPLE), "--log-format", "json")
BLOCKS = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


class Studio:
    """The service of the example; so many looks at its paintings find them wet."""

    def __init__(self, wet_looks: float = 1) -> None:
        self.wet_looks = wet_looks
        self.paintings: list[Any] = []
        self.looks = 0
        self.looked = trio.Event()
        self.app = Starlette(
            routes=[
                Route("/v1/health", self.health),
                Route("/v1/paintings", self.begin, methods=["POST"]),
                Route("/v1/paintings/{id}", self.look),
                Route("/v1/captions", self.caption, methods=["POST"]),
                Route("/files/one.png", self.file),
            ]
        )

    async def health(self, request: Request) -> Response:
        return Response()

    async def begin(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"problem": "who are you?"}, 401)
        self.paintings.append(await request.json())
        return JSONResponse({"painting": {"id": len(self.paintings)}}, 202)

    async def look(self, request: Request) -> Response:
        self.looks += 1
        self.looked.set()
        painting = {"state": "wet", "percent": 40}
        if self.looks > self.wet_looks:
            painting = {"state": "dry", "images": [{"url": "/files/one.png"}], "facts": {"brush": 7}}
        return JSONResponse({"painting": painting})

    async def caption(self, request: Request) -> Response:
        asked = (await request.json())["image"]
        if asked == "nothing":
            return JSONResponse({"problem": "there is nothing to see"}, 422)
        return JSONResponse({"caption": "a cat", "words": 2})

    async def file(self, request: Request) -> Response:
        return Response(make_png(8, 8), media_type="image/png")


def environment(url: str, folder: Path) -> dict[str, str]:
    return {
        "STUDIO_API_KEY": KEY,
        "STUDIO_URL": f"{url}/v1",
        "STUDIO_POLL_SECONDS": "0.05",
        "CLOUD_STORAGE_PROVIDER": "local",
        "LOCAL_STORAGE_PATH": str(folder),
    }


async def finished(queue: Queue, job_id: str) -> JobInfo:
    async with queue.watch(job_id) as events:
        async for _ in events:
            pass
    job = await queue.job(job_id)
    assert job is not None
    return job


async def test_jobs_of_a_service_that_was_only_configured(valkey: str, tmp_path: Path) -> None:
    studio = Studio()
    async with open_server(studio.app) as url:
        env = environment(url, tmp_path)
        async with open_command("worker", *WORDS, url=valkey, env=env) as worker, open_queue(valkey) as queue:
            await worker.until("err", "machine.ready")
            painted = await finished(queue, await queue.submit("paint", {"prompt": "a cat", "seed": 5}))
            captioned = await finished(queue, await queue.submit("caption", {"image_url": "http://x/cat.png"}))
            failed = await finished(queue, await queue.submit("caption", {"image_url": "nothing"}))
            lacking = await finished(queue, await queue.submit("paint", {}))
            worker.interrupt()
    size = {"width": 1024, "height": 1024}
    assert studio.paintings == [{"text": "a cat", "size": size, "seed": 5, "style": "plain", "reference": painted.id}]
    result = painted.result or {}
    assert result["data"]["result"] == {"brush": 7}
    assert [file["mime_type"] for file in result["output_files"]] == ["image/png"]
    assert [path.read_bytes() for path in tmp_path.rglob("*.png")] == [make_png(8, 8)]
    data = (captioned.result or {})["data"]
    assert (data["text"], data["result"]) == ("a cat", 2)
    assert (failed.state, failed.failure_reason) == ("failed", "invalid_payload")
    assert "there is nothing to see" in (failed.error or "")
    assert (lacking.state, lacking.failure_reason) == ("failed", "missing_required_field")
    limits = [json.loads(line) for line in worker.err.splitlines() if "service.limits" in line]
    assert {said["service"] for said in limits} == {"studio-paint", "studio-caption"}
    assert "work goes on in it after its job was cancelled" in str(
        next(said["limits"] for said in limits if said["service"] == "studio-caption")
    )
    assert KEY not in worker.err + worker.out + repr((painted, captioned, failed))


async def test_a_worker_that_is_killed_leaves_its_work_to_the_next_one(valkey: str, tmp_path: Path) -> None:
    studio = Studio(wet_looks=math.inf)
    async with open_server(studio.app) as url, open_queue(valkey) as queue:
        env = environment(url, tmp_path) | {"EMP_TRIO_LEASE_SECONDS": "3"}
        async with open_command("worker", *WORDS, url=valkey, env=env) as worker:
            await worker.until("err", "machine.ready")
            job_id = await queue.submit("paint", {"prompt": "a cat"})
            await studio.looked.wait()  # so the id of the work has been remembered
            worker.process.kill()
        studio.wet_looks = 0
        async with open_command("worker", *WORDS, url=valkey, env=env) as worker:
            painted = await finished(queue, job_id)
            worker.interrupt()
    assert (painted.state, painted.attempt) == ("completed", 2)
    assert len(studio.paintings) == 1


async def test_the_example_has_no_mistakes(tmp_path: Path) -> None:
    env = {"STUDIO_API_KEY": KEY, "CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": str(tmp_path)}
    words = ("--mapping", str(EXAMPLE))
    code, out, err = await run_command("check", "--workers", "studio:2", "--strict", *words, env=env)
    assert (code, "warning" in out + err) == (0, False), out + err
    code, out, _ = await run_command("explain", "paint", *words, env=env)
    assert code == 0
    assert "RestAsyncConnector" in out
    assert KEY not in out


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_page_shows_is_in_the_example(block: str) -> None:
    shown = json.loads(block)
    assert any(shown.items() <= found.items() for found in objects(json.loads(EXAMPLE.read_text()))), block


def test_the_page_shows_all_of_the_asynchronous_service() -> None:
    config = json.loads(EXAMPLE.read_text())["services"]["studio-paint"]["api_config"]
    shown = {name for block in BLOCKS for name in json.loads(block)}
    assert config.keys() - shown - {"body", "health_path"} == set()


def objects(value: Any) -> list[Any]:
    """Every object in a JSON value."""
    found = [value] if isinstance(value, dict) else []
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found += objects(item)
    return found
