"""ComfyUI 0.33 and its relatives: replaced classes, the jobs API, canonical ids (real servers 1)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.services.comfyui.history import QueueLook, read_jobs, read_newest
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import Behavior, FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.support import (
    ID,
    bodies,
    cut_short,
    disturbed,
    image,
    open_comfyui,
    running,
    runs,
    sleeping,
    waiting,
)
from tests.services.support import job

OLD = image() | {"2": {"class_type": "OldSave", "inputs": {"images": ["1", 0], "filename_prefix": "out"}}}


@pytest.fixture
async def fake(in_time: None) -> AsyncIterator[FakeComfyUI]:
    """Such a server."""
    async with open_fake_comfyui(
        behavior=Behavior(jobs=True, replaced={"OldSave": "SaveImage", "OldGone": "NoSuchNode"})
    ) as fake:
        yield fake


async def test_a_class_that_the_server_replaces_is_not_refused(connector: Any, fake: FakeComfyUI) -> None:
    """It is not in ``/object_info``, and without a ``_meta`` the server would fail at it."""
    assert len((await run_job(connector, job({"workflow": OLD}))).output_files) == 1
    assert bodies(fake)[0]["prompt"]["2"]["_meta"] == {"title": "OldSave"}


async def test_what_a_server_can_not_replace_is_lacking(connector: Any, fake: FakeComfyUI) -> None:
    for name in ("OldGone", "NeverHeardOf"):
        with pytest.raises(ServiceError, match=name) as caught:
            await run_job(connector, job({"workflow": image() | {"9": {"class_type": name, "inputs": {}}}}))
        assert (caught.value.reason, caught.value.retry) == ("component_error", True)
    assert not bodies(fake)


@pytest.mark.parametrize("route", ["GET /features", "GET /node_replacements"])
@pytest.mark.parametrize("status", [403, 404, 405, 500])
async def test_where_it_can_not_be_asked_the_server_decides(
    connector: Any, fake: FakeComfyUI, route: str, status: int
) -> None:
    fake.inject(route, status, times=100)
    assert len((await run_job(connector, job({"workflow": OLD}))).output_files) == 1
    with pytest.raises(ServiceError, match="does not exist") as caught:
        await run_job(connector, job({"workflow": image() | {"9": {"class_type": "No", "inputs": {}}}}, id="job-2"))
    assert (caught.value.reason, caught.value.retry) == ("component_error", True)


async def test_images_for_the_socket_need_no_class_of_that_name(connector: Any, fake: FakeComfyUI) -> None:
    """``--disable-all-custom-nodes``: the class that is sent is the one that is looked for."""
    workflow = image() | {"2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}
    assert len((await run_job(connector, job({"workflow": workflow}))).output_files) == 1
    assert not [r for r in fake.of("GET /object_info") if "SaveImageWebsocket" in r.target]


async def test_links_that_no_output_needs_go_out_as_they_are(connector: Any, fake: FakeComfyUI) -> None:
    workflow = image() | {"9": {"class_type": "ImageInvert", "inputs": {"image": ["404", 0]}}}
    assert len((await run_job(connector, job({"workflow": workflow}))).output_files) == 1


async def test_one_bad_output_does_not_undo_a_part_that_was_asked_for(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    bad = {
        "7": {"class_type": "ImageInvert", "inputs": {"image": ["404", 0]}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
        "9": {"class_type": "NoSuchSave", "inputs": {"images": ["1", 0]}},
    }
    async with open_comfyui(fake, connector_context, accept_partial=True) as connector:
        assert len((await run_job(connector, job({"workflow": image() | bad}))).output_files) == 1
        assert bodies(fake)[0]["prompt"].keys() == {"1", "2"}


async def test_every_prompt_has_a_canonical_id(connector: Any, fake: FakeComfyUI) -> None:
    for name in ("job-1", "Ünlikely/id", "A" * 300):
        assert (await run_job(connector, job({"workflow": image()}, id=name))).success
    assert all(str(uuid.UUID(body["prompt_id"])) == body["prompt_id"] for body in bodies(fake))


async def test_the_list_of_jobs_is_asked_for_and_not_the_heavy_queue(connector: Any, fake: FakeComfyUI) -> None:
    fake.stranger(sleeping(0.5))
    await running(fake, "a-stranger")
    context = FakeAttempt()
    assert (await run_job(connector, job({"workflow": image()}), context)).success
    assert fake.count("GET /api/jobs") > 0
    assert fake.count("GET /queue") == 0
    assert any("1 before it" in report.message for report in context.reports)


async def test_a_cancel_is_one_call(connector: Any, fake: FakeComfyUI) -> None:
    context = FakeAttempt(stop_remote_work=True)
    await cut_short(connector, job({"workflow": sleeping(20, 1000)}), fake, context)
    await fake.until(lambda: not fake.engine.remaining)
    assert fake.count("POST /api/jobs") >= 1
    assert (
        fake.count("POST /interrupt") == fake.count("POST /queue") - fake.count("POST /prompt") + len(bodies(fake)) == 0
    )


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (405, 1), (500, 2)])
async def test_without_the_list_of_jobs_the_queue_is_looked_at(
    connector: Any, fake: FakeComfyUI, status: int, asked: int
) -> None:
    """A stranger's job can make the list fail: that is no reason to fail ours."""
    fake.inject("GET /api/jobs", status, times=1000)
    before = fake.count("GET /api/jobs")
    connector.server.calls._lists_jobs = True
    fake.stranger(sleeping(0.6))
    await running(fake, "a-stranger")
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert fake.count("GET /queue") > 1
    asked_for = fake.count("GET /api/jobs") - before
    assert asked_for == 1 if asked == 1 else asked_for > 1


async def test_a_prompt_is_adopted_by_the_list_of_jobs(connector: Any, fake: FakeComfyUI) -> None:
    context = FakeAttempt(stop_remote_work=False)
    await cut_short(connector, job({"workflow": sleeping(0.5, 4)}), fake, context)
    again = job({"workflow": sleeping(0.5, 4)}, attempt=2, checkpoint=context.checkpoint or {"x": 1})

    async def nothing() -> None:
        pass

    assert (await disturbed(connector, again, nothing)).service_metadata["adopted"]
    assert runs(fake) == 1
    assert fake.count("GET /queue") == 0


async def test_a_pending_prompt_is_cancelled(connector: Any, fake: FakeComfyUI) -> None:
    fake.stranger(sleeping(3600))
    await running(fake, "a-stranger")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}), FakeAttempt(stop_remote_work=True))
        await waiting(fake, ID)
        nursery.cancel_scope.cancel()
    assert fake.engine.remaining == 1
    assert fake.engine.running is not None


@pytest.mark.parametrize(
    ("answer", "look"),
    [
        ({"jobs": []}, QueueLook(running=(), pending=())),
        (
            {
                "jobs": [
                    {"id": "c", "status": "pending", "priority": 3},
                    {"id": "b", "status": "pending", "priority": 2.5},
                    {"id": "d", "status": "pending"},
                    {"id": "a", "status": "in_progress", "priority": 1},
                    {"id": "z", "status": "completed"},
                    {"id": 7, "status": "pending"},
                    "noise",
                ],
                "pagination": {"has_more": False},
            },
            QueueLook(running=("a",), pending=("d", "b", "c")),
        ),
        ({"jobs": [], "pagination": {"has_more": True}}, None),  # not all of them
        ({"error": "what"}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_list_of_jobs_is_read(answer: Any, look: QueueLook | None) -> None:
    assert read_jobs(answer) == look


def test_the_newest_of_a_history_is_its_last() -> None:
    assert read_newest({"a": {}, "b": {}}) == "b"
    assert read_newest({}) == read_newest([]) == read_newest(None) == ""
