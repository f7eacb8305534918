"""Following one job from outside, whatever gets lost on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from emp_trio.errors import ServerRefused
from emp_trio.queue import events as events_module
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.client import Queue
from emp_trio.queue.events import JobEvent
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Secret
from emp_trio.testing.proxy import open_proxy
from tests.queue.support import Library, iso

LIMIT = 60.0


@pytest.fixture
async def queue(bridge: Bridge) -> Queue:
    await library.ensure(bridge)
    return Queue(bridge)


async def after(events: AsyncIterator[JobEvent]) -> JobEvent:
    """The next event, within the limit."""
    with trio.fail_after(LIMIT):
        return await anext(events)


async def rest(events: AsyncIterator[JobEvent]) -> list[JobEvent]:
    """All further events."""
    with trio.fail_after(LIMIT):
        return [event async for event in events]


def store(lib: Library, job_id: str, token: str, result: dict[str, Any]) -> None:
    """Complete a job as a slot does."""
    stored = json.dumps({"success": True, "data": result, "completed_at": iso()})
    message = json.dumps({"job_id": job_id, "worker_id": "w1", "status": "completed", "result": result})
    lib.call("settle", job_id, token, "m1", "completed", 0, 0, "", "", "", stored, message, "0")


@pytest.mark.parametrize("job_id", ["plain-1", "a/b", 'q"uote', "back\\slash", "ünï", "tab\t", "new\nline", "😀"])
async def test_a_whole_life(queue: Queue, lib: Library, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_LOOK_EVERY", 60.0)  # every event must come by message
    lib.submit(job_id)
    async with queue.watch(job_id) as events:
        assert await after(events) == JobEvent(kind="queued", job_id=job_id)
        token = lib.claim("w1")["jobs"][job_id][1]
        assert await after(events) == JobEvent(kind="progress", job_id=job_id, progress=0, worker_id="w1")
        lib.start(job_id, token)
        assert (await after(events)).progress == 1
        lib.call("progress", job_id, token, "42.5", "half way", "", "0")
        assert await after(events) == JobEvent(
            kind="progress", job_id=job_id, progress=42.5, message="half way", worker_id="w1"
        )
        store(lib, job_id, token, {"success": True, "data": {"n": 1}})
        [last] = await rest(events)
    assert (last.kind, last.progress, last.result) == ("completed", 100.0, {"success": True, "data": {"n": 1}})


async def test_a_failure_and_a_retry_before_it(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    async with queue.watch("j") as events:
        assert (await after(events)).kind == "queued"
        token = lib.claim("w1")["jobs"]["j"][1]
        assert (await after(events)).kind == "progress"
        lib.settle("j", token, "retry", count=1)
        token = lib.claim("w2")["jobs"]["j"][1]
        while (event := await after(events)).worker_id != "w2":
            assert event.kind != "failed"
        lib.settle("j", token, "failed", count=2)
        last = (await rest(events))[-1]
    assert (last.kind, last.error) == ("failed", "boom")


async def test_announcement_of_a_retry_by_an_old_worker_is_not_the_end(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    async with queue.watch("j") as events:
        await after(events)
        lib.db.publish("job_failed", json.dumps({"job_id": "j", "service_type": "comfyui", "error": "first try"}))
        lib.db.hset("job:j", mapping={"status": "assigned", "worker_id": "old"})
        lib.db.publish("update_job_progress", json.dumps({"job_id": "j", "worker_id": "old", "progress": 33.4}))
        seen = [await after(events)]
        while seen[-1].progress != 33.4:
            seen.append(await after(events))
        assert {event.kind for event in seen} <= {"queued", "progress"}


async def test_messages_of_other_jobs_and_nonsense_are_passed_over(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    async with queue.watch("j") as events:
        await after(events)
        for message in (
            "j",
            "[]",
            '"j"',
            '{"job_id":"j2","progress":5}',
            '{"x":"j","job_id":"k"}',
            '{"job_id":"j"',
            b"j\xff",
        ):
            lib.db.publish("update_job_progress", message)
            lib.db.publish("complete_job", message)
        lib.db.publish("update_job_progress", '{"job_id":"j","progress":"many"}')
        lib.db.publish("update_job_progress", '{"job_id":"j","progress":7,"message":null}')
        assert (await after(events)).progress == 0
        assert (await after(events)).progress == 7


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_job_that_has_ended_already(queue: Queue, lib: Library, status: str) -> None:
    lib.submit("j", status=status, error="it was")
    async with queue.watch("j") as events:
        [event] = await rest(events)
    assert (event.kind, event.error) == (status, "it was" if status == "failed" else None)


async def test_job_that_does_not_exist(queue: Queue) -> None:
    async with queue.watch("nobody") as events:
        assert await rest(events) == [JobEvent(kind="missing", job_id="nobody")]


async def test_job_whose_key_is_no_hash_is_a_typed_error(queue: Queue, lib: Library) -> None:
    lib.db.set("job:j", "x")
    with pytest.raises(ServerRefused, match="WRONGTYPE"):
        async with queue.watch("j") as events:
            await rest(events)


async def test_cancelled_job(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    async with queue.watch("j") as events:
        await after(events)
        assert await queue.cancel("j", "enough") == "cancelled"
        [event] = await rest(events)
    assert (event.kind, event.error) == ("failed", "enough")


async def test_end_that_nobody_published_is_found_by_looking(
    queue: Queue, lib: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_LOOK_EVERY", 0.1)
    lib.submit("j")
    async with queue.watch("j") as events:
        await after(events)
        lib.db.hset("job:j", mapping={"status": "failed", "error": "cancelled by the API"})
        [event] = await rest(events)
    assert (event.kind, event.error) == ("failed", "cancelled by the API")


@pytest.mark.parametrize("away", ["for a moment", "while the job ends", "for long"])
async def test_lost_connection_is_waited_for(valkey: str, lib: Library, away: str) -> None:
    async with open_proxy(int(valkey.rpartition(":")[2])) as proxy:
        settings = RedisSettings(url=Secret(f"redis://127.0.0.1:{proxy.port}"), longest_pause=0.1)
        async with open_bridge(settings) as bridge:
            queue = Queue(bridge, patience=0.2)
            lib.submit("j")
            token = lib.claim("w1")["jobs"]["j"][1]
            async with queue.watch("j") as events:
                assert (await after(events)).kind == "progress"
                proxy.refuse = away != "for a moment"
                proxy.reset_all()
                if away == "for long":
                    with trio.move_on_after(0.5):
                        await anext(events)
                        pytest.fail("there is nothing to say")
                store(lib, "j", token, {"n": 1})
                proxy.refuse = False
                last = (await rest(events))[-1]
                assert (last.kind, last.result) == ("completed", {"n": 1})


async def test_leaving_early_leaves_nothing_behind(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    for _ in range(3):
        async with queue.watch("j") as events:
            async for _event in events:
                break
        with trio.move_on_after(0.05):
            async with queue.watch("j") as events:
                await rest(events)
    assert await queue.job("j") is not None


async def test_wait_for_the_next_event_may_be_cancelled_again_and_again(queue: Queue, lib: Library) -> None:
    lib.submit("j")
    token = lib.claim("w1")["jobs"]["j"][1]
    store(lib, "j", token, {"n": 1})
    async with queue.watch("j") as events:
        for _ in range(20):
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(events)
        assert (await after(events)).kind == "completed"
        assert await rest(events) == []


async def test_look_that_was_cancelled_is_made_up_for_at_once(bridge: Bridge, queue: Queue, lib: Library) -> None:
    looks = 0

    async def look(job_id: str) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            await trio.sleep_forever()
        return await queue.job(job_id)

    lib.submit("j", status="completed")
    async with events_module.watch(bridge, "j", look) as events:
        with trio.move_on_after(0.2) as scope:
            await anext(events)
        assert scope.cancelled_caught
        assert looks == 1
        with trio.fail_after(events_module._LOOK_EVERY / 2):
            assert (await anext(events)).kind == "completed"


async def test_many_watchers_of_many_jobs(queue: Queue, lib: Library) -> None:
    ends: dict[str, str] = {}

    async def follow(job_id: str, task_status: trio.TaskStatus[None]) -> None:
        async with queue.watch(job_id) as events:
            await after(events)
            task_status.started()
            ends[job_id] = (await rest(events))[-1].kind

    async with trio.open_nursery() as nursery:
        for number in range(30):
            lib.submit(f"j{number}")
            await nursery.start(follow, f"j{number}")
        for job_id, (_, token, _) in lib.claim(*(f"w{n}" for n in range(30)))["jobs"].items():
            kind = "failed" if int(job_id[1:]) % 3 == 0 else "completed"
            lib.settle(job_id, token, kind, count=1)
    assert ends == {f"j{n}": "failed" if n % 3 == 0 else "completed" for n in range(30)}
