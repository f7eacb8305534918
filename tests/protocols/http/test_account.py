"""Whose account a call is made with: the connector's own, or that of one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from emp_trio.errors import ServiceError
from emp_trio.protocols.auth import ApiKeyHeader, Bearer
from emp_trio.secrets import Secret
from emp_trio.testing.faulty_server import event_stream, open_faulty_server, redirect, reply, too_many

from ..support import HttpProbe, failure, kind, open_http

OURS, THEIRS = Bearer(Secret("ours-0123456789")), Bearer(Secret("theirs-0123456789"))
GOOD = reply(200, json={})


async def test_credentials_of_one_call_take_the_place_of_the_connectors() -> None:
    async with open_faulty_server(GOOD) as faulty, open_http(faulty.url, auth=OURS) as probe:
        await probe.http.request("POST", "/", auth=THEIRS)
        await probe.http.request("POST", "/", auth=ApiKeyHeader("x-api-key", Secret("theirs-0123456789")))
        await probe.http.request("POST", "/", auth=None)
        first, second, third = (request.headers for request in faulty.requests)
    assert first["authorization"] == "Bearer theirs-0123456789"
    assert (second["x-api-key"], "authorization" in second) == ("theirs-0123456789", False)
    assert third["authorization"] == "Bearer ours-0123456789"


async def test_credentials_of_one_call_stay_at_home_and_out_of_errors() -> None:
    async with (
        open_faulty_server(reply(400, "no: theirs-0123456789")) as other,
        open_faulty_server(redirect(other.url)) as faulty,
    ):
        async with open_http(faulty.url, auth=OURS) as probe:
            error = await failure(probe, "GET", auth=THEIRS)
        assert "authorization" in faulty.requests[0].headers
        assert "authorization" not in other.requests[0].headers
    assert "theirs" not in str(error)


async def test_pauses_are_those_of_the_connectors_own_account() -> None:
    async with (
        open_faulty_server(too_many(retry_after="100"), GOOD) as faulty,
        open_http(faulty.url, max_retries=0) as probe,
    ):
        with trio.fail_after(60):
            assert kind(await failure(probe, "POST", auth=THEIRS))[0] == "rate_limit"
            await probe.http.request("POST", "/")
            probe.limiter.slow_down(100)
            await probe.http.request("POST", "/", auth=THEIRS)
            assert (await failure(probe, "POST")).retry_after == pytest.approx(100, abs=5)
        assert len(faulty.requests) == 3


async def test_the_connector_learns_of_its_own_good_answers() -> None:
    learned: list[str] = []

    class Learning(HttpProbe):
        def answered(self, headers: Mapping[str, str]) -> None:
            learned.append(headers["x-number"])

    answers: Any = [reply(200, json={}, headers={"X-Number": str(n)}) for n in range(3)]
    answers.insert(1, reply(500, headers={"X-Number": "bad"}))
    async with open_faulty_server(*answers) as faulty, open_http(faulty.url, max_retries=0) as probe:
        probe.__class__ = Learning
        await probe.http.request("POST", "/")
        await failure(probe, "POST")
        await probe.http.request("POST", "/", auth=THEIRS)
        await probe.http.request("GET", "/")
    assert learned == ["0", "2"]


async def test_the_services_id_of_a_call_is_on_every_error() -> None:
    named = {"x-request-id": "req_9"}
    answers = (
        reply(400, headers=named),
        reply(200, "no JSON", headers=named),
        reply(200, "half", headers=named, length=99),
    )
    for answer in answers:
        async with (
            open_faulty_server(answer) as faulty,
            open_http(faulty.url, max_retries=0, read_timeout=0.2) as probe,
        ):
            error = await failure(probe, "POST")
        assert error.request_id == "req_9"
        assert str(error).endswith("(request req_9)")


async def test_a_repeated_call_is_named_by_its_last_answer() -> None:
    answers = [reply(503, headers={"x-request-id": f"req_{n}"}) for n in (1, 2)]
    async with open_faulty_server(*answers) as faulty, open_http(faulty.url, max_retries=1) as probe:
        error = await failure(probe, "POST")
    assert error.request_id == "req_2"
    assert str(error).endswith("(after 2 tries, request req_2)")


async def test_events_know_the_answer_they_come_in() -> None:
    async with (
        open_faulty_server(event_stream(b"data: 1\n\n")) as faulty,
        open_http(faulty.url) as probe,
        probe.streaming.events("POST", "/") as events,
    ):
        assert events.stream.status == 200
        with pytest.raises(ServiceError, match=r"^POST http.*: odd$"):
            raise events.stream.explain(ServiceError("odd"))
