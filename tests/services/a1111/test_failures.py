"""Failures of A1111 and of the way to it: what is known of the work then, and whether it is asked for again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.secrets import Secret
from emp_trio.services.a1111.connector import A1111WebSocketConnector
from emp_trio.testing.a1111 import Failure, FakeA1111, Script
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, redirect, reply
from emp_trio.testing.proxy import FaultProxy, open_proxy
from tests.services.a1111.support import GENERATE, HELD, PROMPT, held, open_a1111
from tests.services.support import job

OURS = "task(job-1-1)"


@asynccontextmanager
async def behind_a_proxy(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> AsyncIterator[tuple[FaultProxy, A1111WebSocketConnector]]:
    """The connector, and the proxy that cuts its connections."""
    async with (
        open_proxy(urlsplit(a1111.base_url).port or 0) as proxy,
        open_a1111(f"http://127.0.0.1:{proxy.port}", connector_context, cleanup_timeout=2.0) as connector,
    ):
        yield proxy, connector


async def failing(connector: A1111WebSocketConnector, context: FakeAttempt, errors: list[ServiceError]) -> None:
    """An attempt that fails."""
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job(PROMPT, checkpoint=context.checkpoint), context)
    errors.append(caught.value)


async def cut_in_the_middle(
    a1111: FakeA1111, connector_context: ConnectorContext, context: FakeAttempt, *, number: int = 0, looks: int = 0
) -> ServiceError:
    """An attempt whose connections are cut while the work with that number stands still; its error."""
    errors: list[ServiceError] = []
    with trio.fail_after(60):
        async with behind_a_proxy(a1111, connector_context) as (proxy, connector), trio.open_nursery() as nursery:
            nursery.start_soon(failing, connector, context, errors)
            await a1111.until(lambda: held(a1111, number) and a1111.count("/internal/progress") >= looks)
            proxy.reset_all()
    return errors[0]


async def test_a_broken_call_is_interrupted_and_repeated_once(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    """The server goes on when its client is gone, and its result is lost."""
    a1111.script = HELD
    context = FakeAttempt()
    error = await cut_in_the_middle(a1111, connector_context, context)
    assert (error.type, error.retry, error.maybe_started) == ("network_error", True, True)
    assert [work.end for work in a1111.work] == ["interrupted"]
    assert context.checkpoint == {"calls": 1}
    error = await cut_in_the_middle(a1111, connector_context, context, number=1)
    assert not error.retry
    assert "not asked again" in error.message
    errors: list[ServiceError] = []
    async with open_a1111(a1111.base_url, connector_context) as connector:
        await failing(connector, context, errors)
    assert not errors[0].retry
    assert [work.end for work in a1111.work] == ["interrupted"] * 2


async def test_a_broken_call_of_a_job_that_waits_interrupts_nobody(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = HELD
    other = a1111.begin("txt2img", {})
    errors: list[ServiceError] = []
    with trio.fail_after(60):
        async with behind_a_proxy(a1111, connector_context) as (proxy, connector), trio.open_nursery() as nursery:
            nursery.start_soon(failing, connector, FakeAttempt(), errors)
            await a1111.until(lambda: held(a1111) and len(a1111.work) == 2)
            proxy.reset_all()
    assert errors[0].maybe_started
    assert (a1111.engine.interrupts, other.end) == ([], "running")


async def test_a_server_that_knows_no_tasks_is_interrupted_only_as_long_as_ours_runs(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script, a1111.task_routes = HELD, False
    errors: list[ServiceError] = []
    with trio.fail_after(60):
        async with behind_a_proxy(a1111, connector_context) as (proxy, connector), trio.open_nursery() as nursery:
            nursery.start_soon(failing, connector, FakeAttempt(), errors)
            await a1111.until(lambda: held(a1111))
            looks = a1111.count("/sdapi/v1/progress")
            await a1111.until(lambda: a1111.count("/sdapi/v1/progress") > looks + 1)
            other = a1111.begin("txt2img", {})  # the next in the queue: it runs as soon as ours is stopped
            proxy.reset_all()
    assert errors[0].maybe_started
    assert a1111.work[0].end == "interrupted"
    assert set(a1111.engine.interrupts) == {a1111.work[0].task_id}
    assert other.end == "running"


async def test_a_server_that_says_nothing_for_too_long(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.script = HELD
    async with open_a1111(a1111.base_url, connector_context, answer_timeout=0.3) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.type, caught.value.maybe_started) == ("timeout", True)
    assert a1111.work[0].end == "interrupted"


async def test_half_a_image_that_somebody_else_has_interrupted_is_no_result(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = HELD
    errors: list[ServiceError] = []
    context = FakeAttempt()
    with trio.fail_after(60):
        async with open_a1111(a1111.base_url, connector_context) as connector, trio.open_nursery() as nursery:
            nursery.start_soon(failing, connector, context, errors)
            await a1111.until(lambda: held(a1111))
            a1111.engine.interrupt()
    assert a1111.work[0].answer[0] == 200
    assert (errors[0].code, errors[0].retry) == ("interrupted", True)
    assert context.checkpoint == {"calls": 1}


async def test_a_gateway_that_gives_up(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    """Its 504 says nothing of the work, which goes on."""
    a1111.script = HELD
    left = a1111.begin("txt2img", {"force_task_id": OURS})
    await a1111.until(lambda: held(a1111))
    a1111.inject(GENERATE, status=504, body=b"<html>Gateway Time-out</html>")
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.status, caught.value.retry, caught.value.maybe_started) == (504, True, True)
    assert left.end == "interrupted"


async def test_a_server_that_is_gone(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    context = FakeAttempt()
    errors: list[ServiceError] = []
    with trio.fail_after(60):
        async with behind_a_proxy(a1111, connector_context) as (proxy, connector):
            proxy.refuse = True
            await failing(connector, context, errors)
    assert (errors[0].type, errors[0].retry) == ("network_error", True)
    # A reset may come before or after the request was written: only in the second case is it counted.
    assert (context.checkpoint == {"calls": 1}) == errors[0].maybe_started


async def test_a_generation_that_raises_is_tried_once_more(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(failure=Failure())
    context = FakeAttempt()
    errors: list[ServiceError] = []
    async with open_a1111(a1111.base_url, connector_context) as connector:
        for _ in range(2):
            await failing(connector, context, errors)
    assert [error.retry for error in errors] == [True, False]
    assert "something went wrong" in errors[0].message
    assert a1111.engine.interrupts == []


async def test_a_generation_that_finds_no_memory_may_be_tried_elsewhere(
    a1111: FakeA1111, connector_context: ConnectorContext
) -> None:
    a1111.script = Script(failure=Failure(error="OutOfMemoryError", errors="CUDA out of memory. Tried to allocate"))
    context = FakeAttempt()
    errors: list[ServiceError] = []
    async with open_a1111(a1111.base_url, connector_context) as connector:
        for _ in range(3):
            await failing(connector, context, errors)
    assert {(error.type, error.reason, error.retry) for error in errors} == {
        ("resource_limit", "gpu_memory_full", True)
    }
    assert context.checkpoint is None  # it has ended: nothing is done twice


@pytest.mark.parametrize(
    ("payload", "status", "said"),
    [
        (PROMPT | {"steps": "many"}, 422, "steps: value is not a valid int"),
        (PROMPT | {"script_name": "xyz"}, 422, "Script 'xyz' not found"),
        (PROMPT | {"sampler_name": "Oiler"}, 400, "Sampler not found"),
    ],
)
async def test_a_request_that_the_server_refuses_is_not_repeated(
    a1111: FakeA1111, connector_context: ConnectorContext, payload: dict[str, object], status: int, said: str
) -> None:
    context = FakeAttempt()
    async with open_a1111(a1111.base_url, connector_context) as connector:
        with pytest.raises(ServiceError, match=said) as caught:
            await run_job(connector, job(payload), context)
    assert (caught.value.status, caught.value.type, caught.value.retry) == (status, "validation_error", False)
    assert a1111.count(GENERATE) == 1
    assert context.checkpoint is None


async def test_a_password_is_given_and_never_shown(a1111: FakeA1111, connector_context: ConnectorContext) -> None:
    a1111.api_auth = "ann", Secret("correct-horse")
    async with open_a1111(
        a1111.base_url, connector_context, username="ann", password=Secret("correct-horse")
    ) as connector:
        assert (await run_job(connector, job(PROMPT))).success
        assert (await connector.health()).healthy
    async with open_a1111(a1111.base_url.replace("//", "//ann:correct-horse@"), connector_context) as connector:
        assert (await connector.health()).healthy
        assert "correct-horse" not in connector.settings.http.base_url
    async with open_a1111(
        a1111.base_url, connector_context, username="ann", password=Secret("wrong-horse")
    ) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)
    assert "A1111_PASSWORD" in caught.value.message
    assert "horse" not in caught.value.message


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({"api_key": Secret("k-123456")}, "authorization", "Bearer k-123456"),
        ({"api_key": Secret("k-123456"), "api_key_header": "X-API-Key"}, "x-api-key", "k-123456"),
    ],
)
async def test_the_credentials_of_a_proxy(
    connector_context: ConnectorContext, settings: dict[str, Any], header: str, value: str
) -> None:
    async with (
        open_faulty_server(reply(200, json={"ram": {}, "cuda": {}})) as faulty,
        open_a1111(f"{faulty.url}/gpu7/", connector_context, **settings) as connector,
    ):
        assert (await connector.health()).healthy
    assert faulty.requests[0].headers[header] == value
    assert faulty.requests[0].target == "/gpu7/sdapi/v1/memory"


@pytest.mark.parametrize(
    "page", [reply(200, "<html>log in</html>", content_type="text/html"), redirect("https://sso.example/login")]
)
async def test_a_login_page_is_no_answer(connector_context: ConnectorContext, page: object) -> None:
    async with open_faulty_server(page) as faulty, open_a1111(faulty.url, connector_context) as connector:  # type: ignore[arg-type]
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(PROMPT))
        assert not (await connector.health()).healthy
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)
    assert "credentials" in caught.value.message
