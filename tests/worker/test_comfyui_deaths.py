"""A whole machine beside a ComfyUI that is killed and started again at random moments: no job is lost, no result is
accepted twice, and none is another job's."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.services.comfyui.connectors import ComfyUIWebSocketConnector
from emp_trio.services.comfyui.graph import prompt_id_of
from emp_trio.services.comfyui.settings import ComfyUISettings
from emp_trio.services.comfyui.tracker import FollowSettings
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from emp_trio.testing.storage import local_storage
from tests.queue.support import Ear
from tests.worker.support import HEAVY, eventually, open_machine, submit

JOBS, DEATHS, SLOTS = (50, 200, 8) if HEAVY else (8, 8, 4)
LIMIT = 300.0 if HEAVY else 60.0
SEED = 20240701


def settings(fake: FakeComfyUI) -> Any:
    """A connector that notices within tenths of seconds."""
    return ComfyUIWebSocketConnector.Settings(
        comfyui=ComfyUISettings(
            host="localhost",
            call_timeout=2.0,
            cleanup_timeout=1.0,
            canary_timeout=1.0,
            canary_interval=0.1,
            reconnect_delay=0.02,
            reconnect_cap=0.1,
        ),
        http=HttpSettings(base_url=fake.url, max_retries=0),
        websocket=WebSocketSettings(url=""),
        follow=FollowSettings(
            poll_interval=0.05, poll_soon=0.02, marker_wait=0.1, history_wait=0.1, outage_timeout=0.1, busy_timeout=2.0
        ),
    )


def graph(number: int) -> dict[str, Any]:
    """A graph whose image is unlike that of any other number."""
    sleep = {"seconds": 0.1, "steps": 4, "salt": number}
    return {
        "1": {"class_type": "RigSleep", "inputs": sleep},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
    }


def working(fake: FakeComfyUI, jobs: list[str]) -> bool:
    """Whether a job's prompt waits or runs."""
    here = {item.prompt_id for item in [*fake.engine.pending, fake.engine.running] if item is not None}
    return not here.isdisjoint(map(prompt_id_of, jobs))


async def hurry(db: Any) -> None:
    """Let failed jobs be tried again at once instead of after up to a minute."""
    while True:
        if waiting := db.zrange("emp:delayed", 0, -1):
            db.zadd("emp:delayed", dict.fromkeys(waiting, time.time() * 1000), xx=True)
        await trio.sleep(0.02)


async def test_a_machine_whose_comfyui_dies_again_and_again_completes_every_job_once(
    valkey: str, db: Any, ear: Ear, tmp_path: Path
) -> None:
    """4.4, 4.5. Jobs come as the deaths go on, so that any death may hit one."""
    chance = random.Random(SEED)
    jobs: list[str] = []
    deaths = 0
    busy = 0  # deaths that hit a prompt of a job

    async def kill(fake: FakeComfyUI) -> None:
        nonlocal deaths, busy
        while deaths < DEATHS:
            while len(jobs) < min(JOBS, SLOTS + deaths * JOBS // DEATHS):
                jobs.append(submit(db, "comfyui", {"workflow": graph(len(jobs))}, max_retries=1000))
            with trio.move_on_after(0.3):
                await fake.until(lambda: working(fake, jobs))
            await trio.sleep(chance.uniform(0, 0.15))
            busy += working(fake, jobs)
            await fake.kill()
            deaths += 1
            await trio.sleep(chance.uniform(0, 0.02))
            await fake.start()

    began = trio.current_time()
    storage = local_storage(tmp_path / "assets")
    async with open_fake_comfyui() as fake:
        async with (
            open_machine(
                valkey,
                {"comfyui": (ComfyUIWebSocketConnector, settings(fake))},
                slots=SLOTS,
                storage=storage,
                poll_every=0.05,
                health_every=0.2,
                health_retry=0.05,
                circuit_pause=0.05,
                circuit_longest=0.1,
            ),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(kill, fake)
            nursery.start_soon(hurry, db)
            await eventually(lambda: db.hlen("jobs:completed") == JOBS and deaths == DEATHS, limit=LIMIT)
            nursery.cancel_scope.cancel()
        executions = {job_id: fake.executions[prompt_id_of(job_id)] for job_id in jobs}
        made = images(fake)
    seconds = trio.current_time() - began
    attempts = {job_id: int(db.hget(f"job:{job_id}", "attempt")) for job_id in jobs}
    print(
        f"{JOBS} jobs, {deaths} deaths, {busy} of them at work, {sum(attempts.values())} attempts, "
        f"{sum(executions.values())} executions, {seconds:.1f} s"
    )
    assert {job_id: db.hget(f"job:{job_id}", "status") for job_id in jobs} == dict.fromkeys(jobs, "completed")
    assert ends(ear) == dict.fromkeys(jobs, 1)
    assert busy > DEATHS / 4
    assert sum(executions.values()) > JOBS
    found = {job_id: result_file(db, job_id, tmp_path / "assets") for job_id in jobs}
    assert len(set(found.values())) == JOBS
    for job_id, content in found.items():
        assert content in made[prompt_id_of(job_id)], f"the file of {job_id} is not its own"
    assert len(list((tmp_path / "assets").rglob("*.png"))) == JOBS
    assert db.zcard("jobs:pending") == db.zcard("emp:leases") == db.zcard("emp:delayed") == 0


def ends(ear: Ear) -> Counter[str]:
    """How often the completion of each job was published."""
    return Counter(message["job_id"] for _, message in ear.heard("complete_job"))


def images(fake: FakeComfyUI) -> dict[str, set[bytes]]:
    """Everything that the runs of each prompt have made: the folder of a file has the prompt's name."""
    found: dict[str, set[bytes]] = {}
    for (_, folder, _), content in fake.disk.files.items():
        found.setdefault(folder.partition("/")[0], set()).add(content)
    return found


def result_file(db: Any, job_id: str, folder: Path) -> bytes:
    """The one file of a job's accepted result."""
    result = json.loads(db.hget("jobs:completed", job_id))["data"]
    [file] = result["output_files"]
    assert file["metadata"]["cdn_url"] == (folder / file["path"]).as_uri()
    content: bytes = (folder / file["path"]).read_bytes()
    return content
