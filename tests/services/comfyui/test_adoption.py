"""A prompt belongs to its job: the next attempt finds it by its id, waiting, running or finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.comfyui import FakeComfyUI, open_fake_comfyui
from tests.services.comfyui.support import (
    ID,
    bodies,
    cut_short,
    disturbed,
    image,
    open_comfyui,
    runs,
    sleeping,
    waiting,
)
from tests.services.support import job, stored

DRAIN: dict[str, Any] = {"stop_remote_work": False}


async def test_a_running_prompt_is_adopted(
    fake: FakeComfyUI, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    """After a drain, by another worker."""
    first = FakeAttempt(**DRAIN)
    async with open_comfyui(fake, connector_context) as connector:
        await cut_short(connector, job({"workflow": sleeping(0.6, 6)}), fake, first)
    async with open_comfyui(fake, connector_context, quiet=False) as connector:
        again = job({"workflow": sleeping(0.6, 6)}, attempt=2, checkpoint=first.checkpoint)
        result = await run_job(connector, again)
    assert result.service_metadata["adopted"]
    assert runs(fake) == len(bodies(fake)) == 1
    assert len(stored(tmp_path / "assets")) == 1


async def test_an_adopted_prompt_is_not_taken_for_dead_because_it_talks_to_another(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.4: its messages go to the client id that sent it."""
    first = FakeAttempt(**DRAIN)
    async with open_comfyui(fake, connector_context, follow={"silence_timeout": 0.2}) as connector:
        await cut_short(connector, job({"workflow": sleeping(0.8)}), fake, first)
        again = job({"workflow": sleeping(0.8)}, attempt=2, checkpoint=first.checkpoint)
        assert (await run_job(connector, again)).success


async def test_a_finished_prompt_is_adopted(connector: Any, fake: FakeComfyUI) -> None:
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(0.2, 2)}), fake, first)
    await fake.until(lambda: ID in fake.engine.history)
    result = await run_job(connector, job({"workflow": sleeping(0.2, 2)}, attempt=2, checkpoint=first.checkpoint))
    assert result.service_metadata["adopted"]
    assert runs(fake) == 1


async def test_a_prompt_that_ends_while_it_is_looked_for_is_adopted(connector: Any, fake: FakeComfyUI) -> None:
    """8: it goes from the queue to the history; asked the other way round, neither has it."""
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(0.3, 3)}), fake, first)
    fake.inject("GET /queue", delay=0.8)
    result = await run_job(connector, job({"workflow": sleeping(0.3, 3)}, attempt=2, checkpoint=first.checkpoint))
    assert result.service_metadata["adopted"]
    assert runs(fake) == 1


async def test_a_waiting_prompt_is_adopted(connector: Any, fake: FakeComfyUI) -> None:
    fake.stranger(sleeping(0.5, 5))
    first = FakeAttempt(**DRAIN)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}), first)
        await waiting(fake)
        nursery.cancel_scope.cancel()
    assert (await run_job(connector, job({"workflow": image()}, attempt=2, checkpoint=first.checkpoint))).success
    assert runs(fake) == len(bodies(fake)) == 1


async def test_the_prompt_is_remembered_before_it_is_sent(connector: Any, fake: FakeComfyUI) -> None:
    """Otherwise a crash between the two would run it twice."""
    context = FakeAttempt()
    fake.inject("POST /prompt", delay=3600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": image()}), context)
        await fake.until(lambda: bodies(fake))
        assert context.checkpoint == {"comfyui": {"server": fake.url, "prompt": ID}}
        nursery.cancel_scope.cancel()


async def test_another_server_starts_anew(
    fake: FakeComfyUI, connector: Any, connector_context: ConnectorContext
) -> None:
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(20, 1000)}), fake, first)
    async with open_fake_comfyui() as other, open_comfyui(other, connector_context) as elsewhere:
        result = await run_job(elsewhere, job({"workflow": image()}, attempt=2, checkpoint=first.checkpoint))
        assert not result.service_metadata["adopted"]
        assert runs(other) == 1


async def test_a_restarted_server_starts_anew(connector: Any, fake: FakeComfyUI) -> None:
    """4.5: nothing survives a restart."""
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(20, 1000)}), fake, first)
    await fake.restart()
    assert (await run_job(connector, job({"workflow": image()}, attempt=2, checkpoint=first.checkpoint))).success
    assert runs(fake) == 2


async def test_an_old_end_in_the_history_is_not_taken_for_that_of_the_new_run(
    connector: Any, fake: FakeComfyUI
) -> None:
    """2.1: the same id sent twice runs twice, and until the second has ended the history shows the first."""

    async def interrupt() -> None:
        await fake.until(lambda: fake.engine.node)
        fake.engine.interrupt(ID)

    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(20, 1000)}), fake, first)
    await interrupt()
    await fake.until(lambda: ID in fake.engine.history)
    result = await run_job(connector, job({"workflow": sleeping(0.3, 3)}, attempt=2, checkpoint=first.checkpoint))
    assert result.success
    assert runs(fake) == 2


async def test_a_failure_that_nobody_was_told_of_is_told_and_not_repeated(connector: Any, fake: FakeComfyUI) -> None:
    bad = sleeping(0.2, 2) | {"3": {"class_type": "RigRaise", "inputs": {"image": ["1", 0], "message": "no"}}}
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": bad}), fake, first)
    await fake.until(lambda: ID in fake.engine.history)
    with pytest.raises(ServiceError, match="RigRaise") as caught:
        await run_job(connector, job({"workflow": bad}, attempt=2, checkpoint=first.checkpoint))
    assert not caught.value.retry
    assert runs(fake) == 1
    with pytest.raises(ServiceError, match="RigRaise"):  # when an operator asks for it, it is tried again
        await run_job(connector, job({"workflow": bad}, attempt=3, checkpoint=first.checkpoint))
    assert runs(fake) == 2


async def test_an_adopted_prompt_is_lost_like_any_other(connector: Any, fake: FakeComfyUI) -> None:
    first = FakeAttempt(**DRAIN)
    await cut_short(connector, job({"workflow": sleeping(20, 1000)}), fake, first)
    again = job({"workflow": sleeping(20, 1000)}, attempt=2, checkpoint=first.checkpoint)

    async def restart() -> None:
        await fake.until(lambda: fake.count("GET /history") > 3)
        await fake.restart()

    with pytest.raises(ServiceError) as caught:
        await disturbed(connector, again, restart)
    assert caught.value.code == "lost"


async def test_two_attempts_of_one_job_at_a_time_are_not_confused(connector: Any, fake: FakeComfyUI) -> None:
    """An attempt that lost its lease may still be winding up when the next one comes to the same connector."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": sleeping(20, 1000)}))
        await fake.until(lambda: fake.engine.node)
        with pytest.raises(ServiceError, match="earlier attempt") as caught:
            await run_job(connector, job({"workflow": image()}, attempt=2))
        assert caught.value.retry
        nursery.cancel_scope.cancel()
