"""The account: its key, its limits, its health, and what an operator gets to see of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, ServiceError
from emp_trio.jobs import JobContext
from emp_trio.mapping import load_mapping, plan
from emp_trio.secrets import Secret
from emp_trio.services.gemini.connector import GeminiConnector
from emp_trio.services.registry import find_connector
from emp_trio.testing.attempt import run_job
from emp_trio.testing.gemini import FakeGemini
from tests.services.gemini.support import forms, open_gemini
from tests.services.gemini.test_errors import IN_37_S, PER_DAY, RETRY
from tests.services.support import job

FLEET_FILE = Path(__file__).parents[2] / "data" / "fleet-service-mapping.json"
CAT = {"prompt": "a cat"}


def route_of(api: str) -> Any:
    return "create" if api == "interactions" else "generate"


@forms
async def test_a_wrong_key_is_final_unhealthy_and_never_shown(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    key = "AIzaSyWrong-a1b2c3d4e5f6g7h8i9j0k1l2m3n4"
    async with open_gemini(gemini, connector_context, api=api, api_key=Secret(key)) as connector:
        with capture_logs() as logs, pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
        health = await connector.health()
    assert (caught.value.type, caught.value.reason, caught.value.retry) == ("auth_error", "invalid_api_key", False)
    assert not health.healthy
    assert "API key not valid" in health.detail
    for shown in (str(caught.value), health.detail, str(logs), repr(connector.settings)):
        assert key not in shown
        assert "a1b2c3d4" not in shown


@forms
async def test_a_key_that_the_service_echoes_is_taken_out(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    other = "AIzaSyOther-0123456789abcdefghijklmnopq"
    said = f"Consumer 'api_key:{gemini.api_key.reveal()}' or {other} or https://h/p?key=abc123secret has no access."
    gemini.inject(route_of(api), status=403, word="PERMISSION_DENIED", message=said)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(ServiceError, match="has no access") as caught:
            await run_job(connector, job(CAT))
    for secret in (gemini.api_key.reveal(), other, "abc123secret"):
        assert secret not in caught.value.message


@forms
async def test_a_good_job_shows_no_secret(gemini: FakeGemini, connector_context: ConnectorContext, api: str) -> None:
    with capture_logs() as logs:
        async with open_gemini(gemini, connector_context, api=api) as connector:
            result = await run_job(connector, job(CAT | {"note": gemini.api_key.reveal()}))
    assert gemini.api_key.reveal() not in msgspec.json.encode(result).decode()
    assert gemini.api_key.reveal() not in str(logs)
    assert all("key=" not in request.path for request in gemini.requests)


@forms
@pytest.mark.parametrize(
    ("status", "word", "details", "outcome"),
    [
        (400, "FAILED_PRECONDITION", None, ("auth_error", "account_suspended")),
        (401, "UNAUTHENTICATED", None, ("auth_error", "invalid_api_key")),
        (402, "", None, ("auth_error", "account_suspended")),
        (403, "PERMISSION_DENIED", None, ("auth_error", "insufficient_permissions")),
        (429, "RESOURCE_EXHAUSTED", [PER_DAY, IN_37_S], ("rate_limit", "daily_quota_exceeded")),
    ],
)
async def test_what_no_job_can_escape_is_asked_once(
    gemini: FakeGemini,
    connector_context: ConnectorContext,
    api: str,
    status: int,
    word: str,
    details: Any,
    outcome: tuple[str, str],
) -> None:
    gemini.inject(route_of(api), status=status, word=word, details=details, listed=True, times=9)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert (caught.value.type, caught.value.reason) == outcome  # each of them opens the worker's circuit
    assert not caught.value.retry
    assert (len(gemini.requests), gemini.billed) == (1, 0)


@forms
async def test_faults_that_pass_are_survived(gemini: FakeGemini, connector_context: ConnectorContext, api: str) -> None:
    wait = [{"@type": RETRY, "retryDelay": "0.02s"}]
    gemini.inject(route_of(api), status=429, word="RESOURCE_EXHAUSTED", details=wait)
    gemini.inject(route_of(api), status=503, word="UNAVAILABLE")
    gemini.inject(route_of(api), status=408, word="")
    gemini.inject("retrieve", status=500, times=2)
    gemini.inject("retrieve", body=b"<html>Bad gateway</html>", status=502, times=2)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        assert (await run_job(connector, job(CAT))).success
    assert (gemini.count(route_of(api)), gemini.billed) == (4, 1)


@forms
async def test_a_long_stated_wait_is_handed_to_the_queue_and_holds_for_the_whole_connector(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    wait = [{"@type": RETRY, "retryDelay": "600s"}]
    gemini.inject(route_of(api), status=429, word="RESOURCE_EXHAUSTED", details=wait)
    async with open_gemini(gemini, connector_context, api=api) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
        assert (caught.value.retry, caught.value.retry_after) == (True, 600)
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT, id="job-2"))
        assert caught.value.type == "rate_limit"
        assert caught.value.retry_after == pytest.approx(600, abs=60)
    assert gemini.count(route_of(api)) == 1


@forms
async def test_an_overload_that_lasts_makes_the_job_wait_in_the_queue(
    gemini: FakeGemini, connector_context: ConnectorContext, api: str
) -> None:
    gemini.inject(route_of(api), status=503, word="UNAVAILABLE", times=9)
    async with open_gemini(gemini, connector_context, api=api, http={"max_retries": 1}) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert (caught.value.retry, caught.value.retry_after) == (True, 30)
    assert gemini.count(route_of(api)) == 2


async def test_storage_that_cannot_work_is_found_out_before_anything_is_paid(
    gemini: FakeGemini, connector_context: ConnectorContext
) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(ConfigError):
            await run_job(connector, job(CAT, ctx=JobContext(provider="azure")))
    assert gemini.requests == []


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"id": 7}', b'"int"', b"null"])
async def test_a_create_without_an_id_may_have_run(
    gemini: FakeGemini, connector_context: ConnectorContext, answer: bytes
) -> None:
    gemini.inject("create", body=answer)
    async with open_gemini(gemini, connector_context) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


async def test_health_and_models(gemini: FakeGemini, connector_context: ConnectorContext) -> None:
    async with open_gemini(gemini, connector_context) as connector:
        assert (await connector.health()).healthy
        models = await connector.models()
        gemini.inject("models", status=503, word="UNAVAILABLE", times=9)
        assert not (await connector.health()).healthy
        gemini.inject("models", body=b'{"models": []}')
    assert "gemini-nano-banana-2.1" in models
    assert "gemini-3.1-flash" not in models
    assert gemini.billed == 0


def settings_of(mapping: Path | None, **environment: str) -> Any:
    found = plan(
        load_mapping(mapping).checked(),
        "gemini:2",
        env={"GEMINI_API_KEY": "AIzaSyTest"} | environment,
        gpus=0,
        find_connector=find_connector,
    )
    service = found.workers[0].routes["gem-nano-banana"]
    assert service.connector is GeminiConnector
    return service.settings


@pytest.mark.parametrize("mapping", [None, FLEET_FILE])
def test_the_variables_of_the_old_fleet_lead_here(mapping: Path | None) -> None:
    url = "https://host/v1beta/models/gemini-3-pro-image:generateContent"
    settings = settings_of(mapping, GEMINI_NANO_BANANA_URL=url, GEMINI_TIMEOUT="90", GEMINI_MAX_RETRIES="1")
    assert settings.gemini.api_key == Secret("AIzaSyTest")
    assert (settings.http.base_url, settings.http.timeout, settings.http.max_retries) == (url, 90.0, 1)
    assert settings.gemini.api == "interactions"


def test_without_them_there_are_defaults() -> None:
    settings = settings_of(None, GEMINI_API="generate_content", GEMINI_IMAGE_MODEL="gemini-3-pro-image")
    assert (settings.http.base_url, settings.http.timeout) == ("https://generativelanguage.googleapis.com", 300.0)
    assert settings.http.read_timeout == 180.0
    assert (settings.gemini.api, settings.gemini.model) == ("generate_content", "gemini-3-pro-image")
