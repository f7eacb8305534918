"""A whole machine in front of a ComfyUI whose worker thread is dead behind a healthy HTTP side (ComfyUI reference 4.6):
its jobs go back without an attempt, it takes no more of them, and says why; the server's restart ends that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from emp_trio.services.comfyui.connectors import ComfyUIWebSocketConnector
from emp_trio.services.comfyui.graph import prompt_id_of
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from emp_trio.testing.storage import local_storage
from tests.worker.support import eventually, open_machine, submit
from tests.worker.test_comfyui_deaths import graph, settings

LIMIT = 120.0


def impatient(fake: FakeComfyUI) -> Any:
    """A connector that suspects within half a second."""
    made = settings(fake)
    comfyui = msgspec.structs.replace(made.comfyui, stall_timeout=0.5, canary_interval=0.05)
    return msgspec.structs.replace(made, comfyui=comfyui)


def troubles(db: Any) -> list[str]:
    """What the machine's slots say against their connectors."""
    found = []
    for worker in db.smembers("workers:active"):
        statuses = json.loads(db.hget(f"worker:{worker}", "connector_statuses") or "{}")
        found += [status["error_message"] for status in statuses.values() if status["status"] != "active"]
    return found


async def test_jobs_of_a_server_that_does_no_work_go_back_without_an_attempt(
    valkey: str, db: Any, tmp_path: Path
) -> None:
    storage = local_storage(tmp_path / "assets")
    async with (
        open_fake_comfyui() as fake,
        open_machine(
            valkey,
            {"comfyui": (ComfyUIWebSocketConnector, impatient(fake))},
            slots=2,
            storage=storage,
            poll_every=0.05,
            health_every=3600.0,
            health_retry=0.05,
        ),
    ):
        await eventually(lambda: len(db.smembers("workers:active")) == 2, limit=LIMIT)
        await fake.until(lambda: sum(fake.executions.values()) == 1 and not fake.engine.remaining)  # the canary
        fake.behavior.dead_thread = True
        fake.stranger(graph(0))
        await fake.until(lambda: fake.executions["a-stranger"])
        first = submit(db, "comfyui", {"workflow": graph(1)})
        await eventually(lambda: fake.count("POST /prompt") > 1, limit=LIMIT)
        await eventually(lambda: db.hget(f"job:{first}", "status") == "pending", limit=LIMIT)
        await eventually(lambda: any("no sign of life" in text for text in troubles(db)), limit=LIMIT)
        assert prompt_id_of(first) not in {item.prompt_id for item in fake.engine.pending}
        assert db.hget(f"job:{first}", "retry_count") in (None, "", "0")
        sent = fake.count("POST /prompt")
        second = submit(db, "comfyui", {"workflow": graph(2)})
        looks = fake.count("GET /history")
        await fake.until(lambda: fake.count("GET /history") > looks + 3)
        assert db.hget(f"job:{second}", "status") == "pending"
        assert fake.count("POST /prompt") == sent
        fake.behavior.dead_thread = False
        await fake.restart()
        await eventually(lambda: db.hlen("jobs:completed") == 2, limit=LIMIT)
    assert db.hget(f"job:{first}", "retry_count") in (None, "", "0")
