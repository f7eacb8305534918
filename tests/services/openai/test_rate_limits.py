"""Rate limits of the account: what the headers of answers say slows the whole connector, not one job."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.queue.settlement import Identity
from emp_trio.secrets import Redactor
from emp_trio.services.openai.chat.text import OpenAITextConnector
from emp_trio.services.openai.chat.text_simple import OpenAITextSimpleConnector
from emp_trio.services.openai.images.text2img import OpenAIText2ImgConnector
from emp_trio.services.openai.rate_headers import exhausted_for, parse_duration
from emp_trio.services.openai.responses.connector import OpenAIResponsesConnector
from emp_trio.testing.attempt import run_job
from emp_trio.testing.openai import FakeOpenAI
from emp_trio.worker.outcome import failed
from tests.services.openai.chat.support import both, open_text
from tests.services.openai.support import open_openai, payload_for
from tests.services.support import job

PROMPT = {"prompt": "hi"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("7.66s", 7.66),
        ("1m26.4s", 86.4),
        ("1h0m0s", 3600.0),
        ("24h", 86400.0),
        ("0s", 0.0),
        (" 1s ", 1.0),
        ("", None),
        ("1", None),
        ("s", None),
        ("1 s", None),
        ("-1s", None),
        ("1s!", None),
        ("soon", None),
        ("1.s", None),
        ("1e3s", None),
        ("٣s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, thousandths: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + thousandths / 1000
    assert parse_duration(f"{hours}h{minutes}m{seconds}s{thousandths}ms") == pytest.approx(expected)
    assert parse_duration(f"{hours}h{minutes}m{seconds}.{thousandths:03}s") == pytest.approx(expected)


@given(st.text(max_size=30) | st.text("0123456789.hms", max_size=30))
def test_no_header_is_fatal(text: str) -> None:
    wait = parse_duration(text)
    assert wait is None or 0 <= wait < 1e15
    headers = {"x-ratelimit-remaining-tokens": text, "x-ratelimit-reset-tokens": text}
    assert exhausted_for(headers) is None


def headers(
    requests: str = "499", reset_requests: str = "120ms", tokens: str = "29000", reset_tokens: str = "1s"
) -> Any:
    return {
        "x-ratelimit-remaining-requests": requests,
        "x-ratelimit-reset-requests": reset_requests,
        "x-ratelimit-remaining-tokens": tokens,
        "x-ratelimit-reset-tokens": reset_tokens,
    }


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        ({}, None),
        (headers(), None),
        (headers(requests="0", reset_requests="6m0s"), 360.0),
        (headers(tokens="0", reset_tokens="120ms"), 0.12),
        (headers("0", "1s", "0", "20s"), 20.0),
        (headers("0", "20s", "0", "1s"), 20.0),
        (headers(requests="0", reset_requests="soon"), None),
        (headers(requests="0", reset_requests="0s"), None),
        (headers(requests="-1", reset_requests="9s"), None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
    ],
)
def test_used_up_windows(given: dict[str, str], wait: float | None) -> None:
    assert exhausted_for(given) == wait


# What the connectors make of it.


async def test_a_good_answer_that_uses_up_a_window_holds_up_the_next_job(
    openai: FakeOpenAI, connector_context: ConnectorContext
) -> None:
    async with open_text(OpenAITextConnector, openai.base_url, connector_context) as connector:
        openai.inject("chat", headers=headers(requests="0", reset_requests="300ms"))
        began = trio.current_time()
        assert (await run_job(connector, job(PROMPT))).success
        assert trio.current_time() - began < 0.3
        assert (await run_job(connector, job(PROMPT))).success
        assert trio.current_time() - began >= 0.3
    assert openai.count("chat") == 2


@pytest.mark.parametrize("cls", [OpenAIResponsesConnector, OpenAIText2ImgConnector])
async def test_what_is_under_way_is_not_held_up(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any]
) -> None:
    """A background response is polled to its end during a pause; new work is handed back when the pause is long."""
    async with open_openai(cls, openai, connector_context) as connector:
        openai.inject("create", headers=headers(tokens="0", reset_tokens="10m0s"))
        with trio.fail_after(60):
            assert (await run_job(connector, job(payload_for(cls)))).success
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job(payload_for(cls), id="job-2"))
    assert (caught.value.type, caught.value.retry) == ("rate_limit", True)
    assert caught.value.retry_after == pytest.approx(600, abs=20)
    assert openai.count("create") == 1


@pytest.mark.parametrize(
    "cls", [OpenAIResponsesConnector, OpenAIText2ImgConnector, OpenAITextConnector, OpenAITextSimpleConnector]
)
async def test_a_429_with_a_wait_slows_the_whole_connector(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any]
) -> None:
    text = cls in (OpenAITextConnector, OpenAITextSimpleConnector)
    payload = PROMPT if text else payload_for(cls)
    opening = (
        open_text(cls, openai.base_url, connector_context) if text else open_openai(cls, openai, connector_context)
    )
    route: Any = "chat" if text else "create"
    openai.inject(route, status=429, code="rate_limit_exceeded", headers={"retry-after": "0.4"})
    async with opening as connector:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload))
            await openai.until(route)
            await connector.health()  # the answer of the first job's call comes before this one's
            nursery.start_soon(run_job, connector, job(payload, id="job-2"))
            with trio.move_on_after(0.2):
                await openai.until(route, 2)
            assert openai.count(route) == 1
    assert trio.current_time() - began >= 0.4
    assert openai.count(route) == 3


@both
async def test_a_wait_above_two_minutes_hands_the_job_back(
    openai: FakeOpenAI, connector_context: ConnectorContext, cls: type[Any]
) -> None:
    openai.inject("chat", status=429, code="rate_limit_exceeded", headers={"retry-after": "300"}, times=9)
    async with open_text(cls, openai.base_url, connector_context) as connector:
        with trio.fail_after(60):
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job(PROMPT))
            with pytest.raises(ServiceError) as other:
                await run_job(connector, job(PROMPT, id="job-2"))
    assert caught.value.retry_after == 300
    assert other.value.retry_after == pytest.approx(300, abs=5)
    assert openai.count("chat") == 1
    for error, delay in ((caught.value, 300.0), (other.value, other.value.retry_after)):
        who = Identity(worker_id="w", machine_id="m")
        settlement = failed(job(PROMPT), error, who, redactor=Redactor(), now=0.0, random=0.5)
        assert (settlement.kind, settlement.delay) == ("release", delay)


async def test_exhausted_credit_is_no_reason_to_wait(openai: FakeOpenAI, connector_context: ConnectorContext) -> None:
    openai.inject("chat", status=429, code="insufficient_quota", headers={"retry-after": "60"})
    async with open_text(OpenAITextConnector, openai.base_url, connector_context) as connector:
        with pytest.raises(ServiceError):
            await run_job(connector, job(PROMPT))
        with trio.fail_after(60):
            assert (await run_job(connector, job(PROMPT))).success
