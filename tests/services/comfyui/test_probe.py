"""Health: evidence of work, and not only of an answer (ComfyUI reference 4.6)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import NotStarted, ServiceError
from emp_trio.services.comfyui.graph import prompt_id_of
from emp_trio.testing.attempt import run_job
from emp_trio.testing.comfyui import FakeComfyUI
from tests.services.comfyui.support import bodies, image, open_comfyui, sleeping, waiting
from tests.services.support import job

KILLS = image() | {"9": {"class_type": "PreviewImage"}}


async def test_a_healthy_server_runs_a_canary_once(fake: FakeComfyUI, connector: Any) -> None:
    for _ in range(3):
        assert (await connector.health()).healthy
    assert fake.count("POST /prompt") == sum(fake.executions.values()) == 1
    assert not bodies(fake)
    assert fake.engine.history == {}


async def test_a_dead_worker_thread_is_found_at_the_start_and_so_is_its_restart(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.6: everything is accepted, nothing runs, HTTP is healthy."""
    fake.engine.dead = True
    async with open_comfyui(fake, connector_context, quiet=False, canary_timeout=0.3) as connector:
        health = await connector.health()
        assert not health.healthy
        assert "worker thread has died" in health.detail
        assert await connector.server.calls.remaining() == 0  # HTTP is healthy, and the canary was taken back
        await fake.restart()
        while not (await connector.health()).healthy:
            await trio.sleep(0.02)


async def test_a_worker_thread_that_dies_in_the_middle_is_found_by_those_who_wait(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.6: the head of the queue does not change any more."""
    async with open_comfyui(fake, connector_context, stall_timeout=0.3) as connector:
        fake.stranger(KILLS, client_id="x")
        await fake.until(lambda: fake.executions["a-stranger"])
        with pytest.raises(NotStarted, match="a-stranger"):  # before it may be taken back, the server is suspect
            await run_job(connector, job({"workflow": image()}))
        assert "a-stranger" in (await connector.health()).detail
        await fake.restart()
        while not (await connector.health()).healthy:
            await trio.sleep(0.02)


async def test_a_long_job_of_our_own_that_gives_signs_of_life_is_no_reason_for_suspicion(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    async with open_comfyui(fake, connector_context, stall_timeout=0.1) as connector, trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job({"workflow": sleeping(20, 1000)}))
        await fake.until(lambda: fake.engine.node)
        nursery.start_soon(run_job, connector, job({"workflow": image()}, id="waits"))
        await waiting(fake, prompt_id_of("waits"))
        looks = fake.count("GET /queue")
        await fake.until(lambda: fake.count("GET /queue") > looks + 4)
        assert (await connector.health()).healthy
        nursery.cancel_scope.cancel()


async def test_a_job_that_fell_silent_makes_the_server_suspect(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.6, 8: after any time-out the server has to show that it works."""
    async with open_comfyui(fake, connector_context, follow={"silence_timeout": 0.3}) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job({"workflow": sleeping(0.8)}))
        await fake.until(lambda: fake.count("POST /prompt") - len(bodies(fake)) == 2)  # the first was at the start
        while not (await connector.health()).healthy:
            await trio.sleep(0.02)


async def test_a_server_with_work_in_hand_is_not_troubled_and_not_suspected(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """7: a shared server is often busy with others' work."""
    fake.stranger(sleeping(3600))
    async with open_comfyui(fake, connector_context) as connector:
        assert (await connector.health()).healthy
        assert fake.count("POST /prompt") == 0


async def test_a_busy_server_whose_work_goes_on_needs_no_canary(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    for number in range(4):
        fake.stranger(sleeping(0.2, salt=number), f"stranger-{number}")
    fake.stranger(sleeping(3600), "the-last")
    async with open_comfyui(fake, connector_context) as connector:
        await fake.until(lambda: fake.engine.running is not None and fake.engine.running.prompt_id == "the-last")
        assert (await connector.health()).healthy
        looks = fake.count("GET /queue")
        with trio.move_on_after(0.4):
            await fake.until(lambda: fake.count("GET /queue") > looks)
        assert fake.count("GET /queue") == looks  # the queue is heavy
        assert fake.count("POST /prompt") == 0


async def test_a_dead_server_does_not_come_to_life_between_two_canaries(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    fake.engine.dead = True
    async with open_comfyui(
        fake, connector_context, quiet=False, canary_timeout=0.1, canary_interval=0.02
    ) as connector:
        seen = 0
        while seen < 3:
            assert not (await connector.health()).healthy
            seen = fake.count("POST /prompt")
        fake.stranger(image())
        for _ in range(20):
            assert not (await connector.health()).healthy
            await trio.sleep(0.01)


async def test_a_server_without_the_classes_of_the_canary_is_taken_as_it_is(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    body = b'{"error": {"type": "invalid_prompt", "message": "no such class", "details": ""}, "node_errors": {}}'
    fake.inject("POST /prompt", 400, body)
    async with open_comfyui(fake, connector_context) as connector:
        assert (await connector.health()).healthy


async def test_a_server_that_is_away_is_unhealthy_and_says_why(connector: Any, fake: FakeComfyUI) -> None:
    await fake.kill()
    health = await connector.health()
    assert not health.healthy
    assert str(fake.port) in health.detail


async def test_something_else_at_the_port_is_not_taken_for_comfyui(connector: Any, fake: FakeComfyUI) -> None:
    """11: a wrapper once talked to the wrong server."""
    fake.inject("GET /prompt", 200, b'{"hello": "world"}', content_type="application/json")
    assert not (await connector.health()).healthy
    fake.inject("GET /prompt", 200, b"<html>login</html>", content_type="text/html")
    health = await connector.health()
    assert "credentials" in health.detail


async def test_models_are_the_fleets_word_and_the_checkpoints(connector: Any, fake: FakeComfyUI) -> None:
    assert await connector.models() == ["comfyui-default", "fake.safetensors"]
    fake.inject("GET /models", 404)
    assert await connector.models() == ["comfyui-default"]


SUSPECT: dict[str, Any] = {"stall_timeout": 0.3, "canary_interval": 0.05}


async def suspected(connector: Any) -> str:
    """Wait until a server is suspect; why."""
    while (health := await connector.health()).healthy:
        await trio.sleep(0.01)
    return str(health.detail)


async def test_a_fresh_worker_finds_a_dead_worker_thread_that_has_work_in_hand(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """4.6: no job of ours waits there, and none is needed to notice it."""
    fake.behavior.dead_thread = True
    fake.stranger(image())
    await fake.until(lambda: fake.executions["a-stranger"])
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector:
        assert (await connector.health()).healthy  # for now: it may be a long job
        assert "a-stranger" in await suspected(connector)
        with pytest.raises(NotStarted, match="not begun"):
            await run_job(connector, job({"workflow": image()}))
        assert not bodies(fake)
        fake.behavior.dead_thread = False
        await fake.restart()
        while not (await connector.health()).healthy:
            await trio.sleep(0.01)


@pytest.mark.parametrize("jobs", [False, True])
async def test_what_waits_in_a_suspect_server_is_taken_back_without_an_attempt(
    fake: FakeComfyUI, connector_context: ConnectorContext, jobs: bool
) -> None:
    fake.behavior.jobs = jobs
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector:
        fake.behavior.dead_thread = True
        fake.stranger(image())
        with pytest.raises(NotStarted, match="no sign of life") as caught:
            await run_job(connector, job({"workflow": image()}))
        assert (caught.value.retry, caught.value.maybe_started) == (True, False)
        assert [item.prompt_id for item in fake.engine.pending] == []
        assert fake.count("POST /interrupt") == 0
        assert (fake.count("GET /queue") == 0) is jobs


async def test_a_prompt_of_ours_that_runs_in_silence_is_left_alone(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    """Loading a model is silent for minutes; the first sign of life clears the server."""
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector:
        results = []

        async def run() -> None:
            results.append(await run_job(connector, job({"workflow": sleeping(3.0)})))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await suspected(connector)
            assert fake.engine.running is not None
            assert not results
        assert results[0].success
        assert (await connector.health()).healthy


@pytest.mark.parametrize("sign", ["memory", "history", "message"])
async def test_the_first_sign_of_life_clears_a_server(
    fake: FakeComfyUI, connector_context: ConnectorContext, sign: str
) -> None:
    fake.behavior.dead_thread = True
    fake.engine.history["first"] = {}
    fake.stranger(image())
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector:
        await suspected(connector)
        match sign:
            case "memory":
                fake.behavior.free -= 2**30
            case "history":
                fake.engine.history["x"] = {}
            case _:
                fake.say({"type": "progress", "data": {"value": 1, "max": 2, "prompt_id": "whose", "node": "1"}})
        while not (await connector.health()).healthy:
            await trio.sleep(0.01)
        await suspected(connector)  # and it counts anew


async def test_news_of_the_queue_are_no_sign_of_life(fake: FakeComfyUI, connector_context: ConnectorContext) -> None:
    """Clients put prompts in and take them out, and the server tells everybody."""
    fake.behavior.dead_thread = True
    fake.stranger(image())
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector, trio.open_nursery() as nursery:

        async def chatter() -> None:
            while True:
                fake.stranger(image(), "another")
                fake.engine.delete(["another"])
                await trio.sleep(0.02)

        nursery.start_soon(chatter)
        await suspected(connector)
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_tell_of_its_memory_is_watched_all_the_same(
    fake: FakeComfyUI, connector_context: ConnectorContext
) -> None:
    fake.inject("GET /system_stats", 404, times=1000)
    fake.inject("GET /history", 403, times=1000)
    fake.behavior.dead_thread = True
    fake.stranger(image())
    async with open_comfyui(fake, connector_context, **SUSPECT) as connector:
        await suspected(connector)
