"""A job's own API key: used for its calls alone, and seen nowhere else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import structlog
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, InvalidJob, ServiceError
from emp_trio.secrets import Secret
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import Answer, Exchange, cut, event_stream, open_faulty_server, reply
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.worker.circuit import verdict
from tests.services.openai.chat.support import both, completion, frame, open_text
from tests.services.support import job

CONNECTORS_KEY = Secret("sk-of-the-connector")
OWN = "job-key-0123456789"  # not of the shape that is hidden anyway
PAYLOAD = {"prompt": "hi", "api_key": OWN}


@both
async def test_a_jobs_own_key_is_used_for_its_calls_alone(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any]
) -> None:
    own = {"prompt": "hi", "api_key": openai.api_key.reveal()}
    account = {"organization": "org-1", "project": "proj-1"}
    async with open_text(cls, openai.base_url, connector_context, api_key=CONNECTORS_KEY, account=account) as connector:
        assert (await run_job(connector, job(own))).data["text"]
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job({"prompt": "hi"}))
    assert caught.value.status == 401
    headers = openai.requests[0].headers
    assert "openai-organization" not in headers
    assert "openai-project" not in headers
    assert headers["x-client-request-id"] == "job-1-1"
    assert "api_key" not in openai.requests[0].body


async def told(cls: type[Any], answer: Answer, connector_context: ConnectorContext, payload: dict[str, Any]) -> str:
    """Everything that an attempt says anywhere: result or error, progress, checkpoint, log."""
    context = FakeAttempt()
    said: list[str] = []
    with structlog.testing.capture_logs() as logs:
        async with (
            open_faulty_server(answer) as faulty,
            open_text(cls, faulty.url, connector_context, api_key=CONNECTORS_KEY, max_retries=0) as connector,
        ):
            try:
                said.append(msgspec.json.encode(await run_job(connector, job(payload), context)).decode())
            except EmpTrioError as error:
                said += [str(error), repr(error), repr(error.failure), repr(error.__cause__)]
            assert faulty.requests[0].headers["authorization"] == f"Bearer {payload['api_key']}"
    said += [repr(context.reports), repr(context.checkpoint), repr(logs)]
    return "\n".join(said)


def echo_error(status: int) -> Answer:
    return reply(status, json={"error": {"message": f"Incorrect API key provided: {OWN}.", "code": None}})


async def echo(exchange: Exchange) -> None:
    """A service that repeats the key in its answer."""
    words = f"your key is {OWN}, isn't it"
    if b'"stream":true' in exchange.request.body:
        answer = event_stream(
            *(frame({"content": words[i : i + 5]}) for i in range(0, len(words), 5)), frame({}, "stop")
        )
    else:
        answer = reply(200, json=completion(words))
    await answer(exchange)


@both
@pytest.mark.parametrize(
    "answer",
    [
        echo,
        echo_error(401),
        echo_error(400),
        reply(500, f"<html>{OWN}</html>"),
        reply(200, f"no JSON but {OWN}", content_type=OWN),
        event_stream(b'data: {"error": {"message": "no such key: %s"}}\n\n' % OWN.encode()),
        cut(event_stream(frame({"content": "some"})), 120),
    ],
    ids=["words", "401", "400", "page", "garbage", "event", "cut"],
)
async def test_a_jobs_own_key_is_nowhere(connector_context: ConnectorContext, cls: type[Any], answer: Answer) -> None:
    said = await told(cls, answer, connector_context, PAYLOAD)
    assert OWN not in said
    assert CONNECTORS_KEY.reveal() not in said


async def test_a_key_in_the_prompt_is_not_kept_with_the_request(connector_context: ConnectorContext) -> None:
    said = await told(OpenAITextConnector, echo, connector_context, {"prompt": f"is {OWN} my key?", "api_key": OWN})
    assert OWN not in said


@both
async def test_a_key_that_cannot_be_sent_is_the_submitters_mistake(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any]
) -> None:
    async with open_text(cls, openai.base_url, connector_context) as connector:
        with pytest.raises(InvalidJob, match="api_key") as caught:
            await run_job(connector, job({"prompt": "hi", "api_key": "hidden\nkey"}))
    assert "hidden" not in str(caught.value)
    assert openai.requests == []


@both
async def test_limits_of_a_jobs_own_account_are_not_those_of_the_connector(
    connector_context: ConnectorContext, cls: type[Any]
) -> None:
    """Its 429 slows nobody else down, and a pause of the connector's account doesn't hold it up."""
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h"}
    error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    good = reply(200, json=completion("fine"), headers=used_up)
    if cls is OpenAITextConnector:
        good = event_stream(frame({"content": "fine"}), frame({}, "stop"))
    answers = (reply(429, json=error, headers=used_up | {"retry-after": "100"}), good)
    async with (
        open_faulty_server(*answers) as faulty,
        open_text(cls, faulty.url, connector_context, api_key=CONNECTORS_KEY, max_retries=0) as connector,
    ):
        with trio.fail_after(60):
            with pytest.raises(ServiceError):
                await run_job(connector, job(PAYLOAD))
            await run_job(connector, job(PAYLOAD))
            await run_job(connector, job({"prompt": "hi"}))
            connector.limiter.slow_down(3600)
            await run_job(connector, job(PAYLOAD))
        with pytest.raises(ServiceError, match="limits of this service"):
            await run_job(connector, job({"prompt": "hi"}))


async def test_the_key_of_a_job_is_not_left_behind(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.script = Script(text="fine")
    async with open_text(OpenAITextConnector, openai.base_url, connector_context, api_key=openai.api_key) as connector:
        with pytest.raises(InvalidJob):
            await run_job(connector, job(PAYLOAD))
        assert (await run_job(connector, job({"prompt": "hi"}))).data["text"] == "fine"
        assert OWN not in repr(vars(connector))


@both
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(401, "invalid_api_key", "auth_error"), (429, "insufficient_quota", "rate_limit"), (403, None, "auth_error")],
)
async def test_a_refused_key_of_a_job_keeps_no_other_job_away(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any], status: int, code: str | None, kind: str
) -> None:
    openai.inject("chat", status=status, code=code, times=2)
    own = {"prompt": "hi", "api_key": openai.api_key.reveal()}
    said = []
    async with open_text(cls, openai.base_url, connector_context, api_key=openai.api_key) as connector:
        for payload in (own, {"prompt": "hi"}):
            with pytest.raises(EmpTrioError) as caught:
                await run_job(connector, job(payload))
            assert (caught.value.type, caught.value.retry) == (kind, False)
            assert "request req_00000" in caught.value.message
            said.append(verdict(caught.value, caught.value.failure))
    assert said == ["neutral", "fatal"]
