"""Cancelling: no one call does it, and none says whether it worked (ComfyUI reference 6)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import DeadlineExceeded, ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import (
    ID,
    bodies,
    cut_short,
    image,
    open_comfyui,
    running,
    runs,
    sleeping,
    waiting,
)
from tests.services.support import job

HEARS = sleeping(20, 1000)


async def test_a_running_prompt_is_interrupted_and_gone_before_the_attempt_ends(
    connector: Any, fake: FakeComfyUI
) -> None:
    await cut_short(connector, job({"workflow": HEARS}), fake, FakeAttempt())
    assert fake.engine.remaining == 0
    interrupts = [msgspec.json.decode(request.body) for request in fake.of("POST /interrupt")]
    assert interrupts
    assert all(body == {"prompt_id": ID} for body in interrupts)
    assert (await run_job(connector, job({"workflow": image()}, id="next"))).success


async def test_a_pending_prompt_is_deleted_and_the_running_one_left_alone(connector: Any, fake: FakeComfyUI) -> None:
    """6: an interrupt of a pending prompt does nothing; with an older server it would stop somebody else's."""
    fake.behavior.old_interrupts = True
    fake.stranger(HEARS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}))
        await waiting(fake)
        nursery.cancel_scope.cancel()
    assert not fake.engine.pending
    assert fake.count("POST /interrupt") == 0
    assert fake.engine.running is not None
    assert fake.engine.running.prompt_id == "a-stranger"
    assert runs(fake) == 0


async def test_a_pending_prompt_that_is_still_there_is_deleted_again_and_not_interrupted(
    connector: Any, fake: FakeComfyUI
) -> None:
    """6, 2.2: an older server stops whatever runs, so only a prompt that is seen to run is interrupted."""
    fake.behavior.old_interrupts = True
    fake.stranger(HEARS)
    fake.inject("POST /queue", 200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}))
        await waiting(fake)
        nursery.cancel_scope.cancel()
    assert not fake.engine.pending
    assert fake.count("POST /interrupt") == 0
    assert fake.engine.remaining == 1


async def test_a_pending_prompt_is_deleted_before_it_is_looked_for(connector: Any, fake: FakeComfyUI) -> None:
    """6: while the queue is being read its turn may come."""
    fake.stranger(HEARS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}))
        await waiting(fake)
        looks = fake.count("GET /queue")
        fake.inject("GET /queue", delay=0.5)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await fake.until(lambda: fake.count("GET /queue") > looks)
        fake.engine.interrupt("a-stranger")
    assert runs(fake) == 0


async def test_an_interrupt_that_had_no_effect_is_sent_again(connector: Any, fake: FakeComfyUI) -> None:
    """6: one that found nothing to stop does not carry over."""
    fake.inject("POST /interrupt", 200)
    await cut_short(connector, job({"workflow": HEARS}), fake, FakeAttempt())
    assert fake.engine.remaining == 0
    assert fake.count("POST /interrupt") > 1


async def test_a_late_interrupt_is_waited_for(connector: Any, fake: FakeComfyUI) -> None:
    """6: a node that does not report hears it only when the next node starts."""
    await cut_short(connector, job({"workflow": sleeping(0.5)}), fake, FakeAttempt())
    assert fake.engine.remaining == 0
    assert not any(key[0] == "output" for key in fake.disk.files)


@pytest.mark.parametrize(
    ("graph", "how"), [(image(), "never ran"), (HEARS, "interrupted"), (sleeping(0.3), "finished")]
)
async def test_the_ways_in_which_a_prompt_stops_are_told_apart_and_none_is_left_to_be_adopted(
    connector: Any, fake: FakeComfyUI, graph: dict[str, Any], how: str
) -> None:
    """6: it never ran, was interrupted, or has finished anyway, as one does whose last node does not report."""
    if how == "never ran":
        fake.stranger(HEARS)
    fake.behavior.ignore_interrupts = how == "finished"
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job({"workflow": graph}))
            await (waiting if how == "never ran" else running)(fake)
            if how == "finished":
                fake.inject("GET /queue", delay=0.5)  # it ends between the looks: queue first, or neither has it
            nursery.cancel_scope.cancel()
    assert [line["how"] for line in logs if line["event"] == "prompt.stopped"] == [how]
    assert ID not in fake.engine.history


async def test_a_prompt_that_can_not_be_stopped_does_not_hold_up_the_cancel_and_is_known(
    connector: Any, fake: FakeComfyUI
) -> None:
    """6, 4.6: bounded; and a server that goes on with it gets no further jobs until it has ended."""
    fake.behavior.ignore_interrupts = True
    start = trio.current_time()
    await cut_short(connector, job({"workflow": sleeping(5.0, 25)}), fake, FakeAttempt())
    assert 1.0 <= trio.current_time() - start < 4.5  # its time for cleanup, and not to the end of the prompt
    while (await connector.health()).healthy:
        await trio.sleep(0.01)
    assert "can't be made to stop" in (await connector.health()).detail
    while not (await connector.health()).healthy:
        await trio.sleep(0.05)
    assert fake.engine.running is None or fake.engine.running.prompt_id != ID  # what runs by now tries the server out


async def test_work_is_left_to_the_next_attempt_where_nobody_wants_it_stopped(
    connector: Any, fake: FakeComfyUI
) -> None:
    await cut_short(connector, job({"workflow": HEARS}), fake, FakeAttempt(stop_remote_work=False))
    assert fake.engine.running is not None
    assert fake.count("POST /interrupt") == 0


async def test_a_deadline_stops_the_prompt(connector: Any, fake: FakeComfyUI) -> None:
    """6, 11: a time-out that leaves the prompt running makes the next job wait behind it."""
    context = FakeAttempt(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    with pytest.raises(DeadlineExceeded):
        await run_job(connector, job({"workflow": HEARS}), context)
    assert runs(fake) == 1
    assert fake.engine.remaining == 0


@pytest.mark.parametrize(
    ("limits", "reason"), [({"queue_timeout": 0.3}, "queue_timeout"), ({"silence_timeout": 0.3}, "processing_timeout")]
)
async def test_the_limits_of_queue_and_silence_stop_the_prompt_before_they_are_told(
    fake: FakeComfyUI, connector_context: ConnectorContext, limits: dict[str, float], reason: str
) -> None:
    """8: time in the queue and time without a sign of life are limits of their own; on expiry: cancel, then report."""
    async with open_comfyui(fake, connector_context, follow=limits) as connector:
        if reason == "queue_timeout":
            fake.stranger(HEARS)
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job({"workflow": sleeping(1.5)}))
        assert (caught.value.reason, caught.value.retry) == (reason, True)
        assert not fake.engine.pending
        assert fake.engine.running is None or fake.engine.running.prompt_id != ID or fake.engine.interrupted


async def test_a_cancel_while_the_prompt_is_being_sent_does_not_lose_it(connector: Any, fake: FakeComfyUI) -> None:
    """2.1: a broken POST may have queued the prompt, so it is not broken off but awaited, and then stopped."""
    fake.inject("POST /prompt", delay=0.3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": HEARS}))
        await fake.until(lambda: bodies(fake))
        nursery.cancel_scope.cancel()
    await fake.until(lambda: runs(fake) == 1)
    assert fake.engine.remaining == 0


async def test_a_cancel_at_any_moment_leaves_nothing_running(connector: Any, fake: FakeComfyUI) -> None:
    for number in range(15):
        with trio.move_on_after(0.007 * number):
            await run_job(connector, job({"workflow": sleeping(20, 1000, salt=number)}, id=f"job-{number}"))
        assert fake.engine.remaining == 0


async def test_a_cancel_by_a_dead_server_is_bounded(connector: Any, fake: FakeComfyUI) -> None:
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": HEARS}))
        await running(fake)
        await fake.kill()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - start < 3
