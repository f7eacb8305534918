"""POST /prompt: refusals, half acceptances, and answers after which nobody knows (ComfyUI reference 2.1)."""

from __future__ import annotations

from typing import Any

import pytest

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.testing.attempt import run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import ID, bodies, disturbed, image, open_comfyui, running, runs, sleeping
from tests.services.support import job

TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"

# One output is bad, one is good.
PARTIAL = image() | {"3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_prompt_that_was_queued_in_spite_of_an_error_is_found(
    connector: Any, fake: FakeComfyUI, status: int
) -> None:
    """2.1: after a 5xx the state is unknown; sending again would run it twice."""
    fake.inject("POST /prompt", status, TROUBLE, after=True)
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert len(bodies(fake)) == runs(fake) == 1


async def test_an_answer_that_breaks_off_is_no_answer(connector: Any, fake: FakeComfyUI) -> None:
    """2.1: a broken connection on this route leaves the state unknown."""
    fake.inject("POST /prompt", cut=30)
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert len(bodies(fake)) == runs(fake) == 1


async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """2.1: a time-out on this route leaves the state unknown."""
    async with open_comfyui(fake, connector_context, call_timeout=0.3) as connector:
        fake.behavior.hold_answers = True

        async def disturb() -> None:
            await running(fake)
            looks = fake.count("GET /history")
            await fake.until(lambda: fake.count("GET /history") > looks)
            assert fake.engine.running is not None

        assert (await disturbed(connector, job({"workflow": sleeping(1.5, 2)}), disturb)).success
        assert len(bodies(fake)) == runs(fake) == 1


@pytest.mark.parametrize("status", [500, 502])
async def test_a_prompt_that_was_not_queued_is_proved_not_to_be_and_tried_again(
    connector: Any, fake: FakeComfyUI, status: int
) -> None:
    """8: a 5xx with proof that nothing was queued is retriable."""
    fake.inject("POST /prompt", status, TROUBLE)
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job({"workflow": image()}))
    assert caught.value.retry
    assert runs(fake) == 0
    assert (await run_job(connector, job({"workflow": image()}, attempt=2))).success
    assert runs(fake) == 1


async def test_a_refused_graph_is_the_jobs_fault(connector: Any, fake: FakeComfyUI) -> None:
    """2.1: a 400 is permanent."""
    with pytest.raises(ServiceError, match="Required input is missing") as caught:
        await run_job(connector, job({"workflow": {"3": PARTIAL["3"]}}))
    assert not caught.value.retry
    assert len(bodies(fake)) == 1


async def test_a_missing_input_image_is_the_jobs_fault(connector: Any) -> None:
    """2.1: custom_validation_failed."""
    workflow = image() | {"1": {"class_type": "LoadImage", "inputs": {"image": "absent.png"}}}
    with pytest.raises(ServiceError, match=r"absent\.png") as caught:
        await run_job(connector, job({"workflow": workflow}))
    assert not caught.value.retry


async def test_a_graph_of_which_outputs_are_dropped_is_stopped_and_fails(connector: Any, fake: FakeComfyUI) -> None:
    """2.1: a 200 with node_errors runs the good outputs only, and the history says success."""
    with pytest.raises(ServiceError, match="only a part of the graph") as caught:
        await run_job(connector, job({"workflow": PARTIAL}))
    assert not caught.value.retry
    assert fake.engine.remaining == 0
    assert ID not in fake.engine.history  # where a later attempt would take it for a success


async def test_a_part_of_a_graph_may_be_asked_for(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    async with open_comfyui(fake, connector_context, accept_partial=True) as connector:
        assert len((await run_job(connector, job({"workflow": PARTIAL}))).output_files) == 1


async def test_a_server_that_is_still_starting_is_waited_for(connector: Any, fake: FakeComfyUI) -> None:
    """7: 503 during the boot of an instance is normal."""
    fake.inject("POST /prompt", 503, times=2)
    assert (await run_job(connector, job({"workflow": image()}))).success
    assert runs(fake) == 1


async def test_a_server_that_is_away_is_worth_a_retry(connector: Any, fake: FakeComfyUI) -> None:
    """8: connection refused at submit."""
    await fake.kill()
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job({"workflow": image()}))
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, False)
