"""A background response, for every connector that has one: its calls, faults of all kinds, the account."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, ServiceError
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret
from emp_trio.services.openai.responses.background import pause, percent
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.openai import FakeOpenAI
from tests.services.openai.support import LONG, connectors, cut_short, open_openai, payload_for, statuses
from tests.services.support import job


@connectors
async def test_every_call_names_the_account_and_the_attempt(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    async with open_openai(cls, openai, connector_context, organization="org-1", project="proj-1") as connector:
        await run_job(connector, job(payload_for(cls), id="jöb", attempt=3))
    for request in openai.requests:
        assert request.headers["x-client-request-id"] == "j?b-3"
        assert request.headers["openai-organization"] == "org-1"
        assert request.headers["openai-project"] == "proj-1"


@connectors
async def test_headers_that_are_not_set_are_not_sent(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    async with open_openai(cls, openai, connector_context) as connector:
        await run_job(connector, job(payload_for(cls), id="x" * 1000))
    assert "openai-organization" not in openai.requests[0].headers
    assert len(openai.requests[0].headers["x-client-request-id"]) == 512


@connectors
async def test_the_id_is_remembered_before_the_first_poll(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    context = FakeAttempt(stop_remote_work=False)
    async with open_openai(cls, openai, connector_context) as connector:
        await cut_short(connector, payload_for(cls), context)
    assert context.checkpoint == {"response_id": next(iter(openai.generations))}
    assert openai.count("retrieve") <= 1


@connectors
async def test_faults_that_pass_are_survived(openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any) -> None:
    openai.inject("create", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "20"})
    openai.inject("create", status=503, code="server_is_overloaded", type="service_unavailable_error")
    openai.inject("retrieve", status=500, times=2)
    openai.inject("retrieve", body=b"<html>Bad gateway</html>", status=502, times=2)
    async with open_openai(cls, openai, connector_context) as connector:
        result = await run_job(connector, job(payload_for(cls)))
    assert result.success
    assert (openai.count("create"), openai.billed) == (3, 1)


@connectors
async def test_five_failed_polls_in_a_row_hand_the_job_back(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.script = LONG
    openai.inject("retrieve", status=500, code="server_error", times=5)
    context = FakeAttempt()
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)), context)
    assert (caught.value.status, caught.value.retry) == (500, True)
    assert openai.count("retrieve") == 5
    assert statuses(openai) == ["in_progress"]  # for the next attempt to adopt
    assert context.checkpoint is not None


@connectors
async def test_a_response_that_expired_is_final(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.inject("retrieve", status=404, type="invalid_request_error", message="Response with id 'x' not found.")
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.retry) == ("response_error", False)


@connectors
@pytest.mark.parametrize("code", ["insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded"])
async def test_an_account_without_credit_is_asked_once(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, code: str
) -> None:
    openai.inject("create", status=429, code=code, type="insufficient_quota", headers={"retry-after": "1"}, times=9)
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError, match="credit") as caught:
            await run_job(connector, job(payload_for(cls)))
    assert not caught.value.retry
    assert openai.count("create") == 1


@connectors
async def test_a_long_stated_wait_is_handed_to_the_queue(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.inject("create", status=429, code="rate_limit_exceeded", headers={"retry-after": "600"}, times=9)
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.retry, caught.value.retry_after) == (True, 600)
    assert openai.count("create") == 1


@connectors
async def test_a_create_that_may_have_run_is_not_repeated_here(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.inject("create", status=500, code="server_error", after=True, times=9)
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.retry, caught.value.maybe_started) == (True, True)
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"id": 7}', b'"resp"', b"null"])
async def test_a_create_without_an_id_may_have_run(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any, answer: bytes
) -> None:
    openai.inject("create", body=answer)
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


@connectors
async def test_storage_that_cannot_work_is_found_out_before_anything_is_paid(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    async with open_openai(cls, openai, connector_context) as connector:
        with pytest.raises(ConfigError):
            await run_job(connector, job(payload_for(cls), ctx=JobContext(provider="azure")))
    assert openai.requests == []


# The account.


@connectors
async def test_a_wrong_key_is_never_shown(openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any) -> None:
    key = "sk-proj-a1b2c3d4e5f6g7h8"
    async with open_openai(cls, openai, connector_context, api_key=Secret(key)) as connector:
        with capture_logs() as logs, pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
        health = await connector.health()
    assert (caught.value.type, caught.value.retry) == ("auth_error", False)
    assert openai.count("create") == 1
    assert not health.healthy
    for text in (str(caught.value), repr(caught.value), health.detail, str(logs), repr(connector.settings)):
        assert key not in text
        assert "a1b2" not in text
        assert "g7h8" not in text


@connectors
async def test_the_key_is_in_no_result_and_no_log(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    with capture_logs() as logs:
        async with open_openai(cls, openai, connector_context) as connector:
            result = await run_job(connector, job(payload_for(cls)))
            assert (await connector.health()).healthy
    key = openai.api_key.reveal()
    assert key not in msgspec.json.encode(result).decode()
    assert key not in str(logs)


@connectors
async def test_an_account_without_models_is_not_healthy(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: Any
) -> None:
    openai.models = []
    async with open_openai(cls, openai, connector_context) as connector:
        assert (await connector.health()).detail == "the account has no models"


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 2), (9.9, 2), (10, 3), (59, 3), (60, 5), (299, 5)])
def test_looks_become_rarer(elapsed: float, seconds: float) -> None:
    assert pause(elapsed, 2.0) == seconds


def test_progress_of_a_response_grows_and_never_arrives() -> None:
    values = [percent(second) for second in range(0, 301, 10)]
    assert values == sorted(values)
    assert values[0] == 15
    assert values[-1] < 85
