"""The connector of a service that can do its work and say that it is well, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ServiceError
from emp_trio.protocols.http import HttpSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.limited import LimitedServiceConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import Answer, cut, hang, open_faulty_server, reply
from emp_trio.testing.png import make_png
from tests.services.support import job


@asynccontextmanager
async def open_limited(url: str, connector_context: ConnectorContext) -> AsyncIterator[LimitedServiceConnector]:
    settings = LimitedServiceConnector.Settings(http=HttpSettings(base_url=url, max_retries=0))
    async with open_connector(LimitedServiceConnector, settings, connector_context) as connector:
        yield connector


async def test_the_payload_goes_and_the_answer_is_the_result(connector_context: ConnectorContext) -> None:
    answer = reply(200, json={"text": "done", "file": "QUJD" * 200})
    async with open_faulty_server(answer) as service, open_limited(service.url, connector_context) as connector:
        result = await run_job(connector, job({"n": 1, "ctx": {"storageKey": "c2VjcmV0"}}))
    (request,) = service.requests
    assert (request.method, request.target, request.body) == ("POST", "/jobs", b'{"n":1}')
    assert result.data == {"text": "done", "file": "<base64 data, 600 bytes>"}
    assert result.raw_request_payload == {"n": 1}


PNG = make_png(8, 8)


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (reply(200, json=[{"text": "done"}, None]), {"result": [{"text": "done"}, None]}),
        (reply(200, json={"error": None, "text": "done"}), {"error": None, "text": "done"}),
        (reply(200, json={"error": "one of two", "text": "done"}), {"error": "one of two", "text": "done"}),
        (reply(200, json={"status": "ok", "message": "done"}), {"status": "ok", "message": "done"}),
        (reply(200, b'{"text": "done"}', content_type="text/html"), {"text": "done"}),
        (reply(200, b'\xef\xbb\xbf{"n": NaN, "a": 1}'), {"n": None, "a": 1}),
    ],
)
async def test_an_object_with_something_in_it_is_the_result(
    connector_context: ConnectorContext, answer: Answer, data: Any
) -> None:
    """It is paid for: nothing is asked for a second time."""
    async with open_faulty_server(answer) as service, open_limited(service.url, connector_context) as connector:
        assert (await run_job(connector, job())).data == data
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words", "retry"),
    [
        (reply(200, json=[]), "not a JSON object", True),
        (reply(200, json=[[{}]]), "not a JSON object", True),
        (reply(200, json={}), "not a JSON object", True),
        (reply(200, json=None), "not a JSON object", True),
        (reply(200, json={"text": "", "images": [], "meta": None}), "something in it: .*images", True),
        (reply(200, json="a word"), "not a JSON object.*a word", False),
        (reply(200, json=7), "not a JSON object.*7", False),
        (reply(200, b"It is done.\n", content_type="text/plain"), "not a JSON object.*It is done", False),
        (reply(200, b""), "empty answer", True),
        (reply(200, b'{"text": ', content_type="application/json"), "not JSON", True),
        (reply(200, b'{"text": '), "instead of JSON", True),
        (reply(200, b"<html><p>Sign in</p></html>", content_type="text/html"), "text/html", True),
        (reply(200, PNG, content_type="image/png"), "image/png.*RestSyncConnector", False),
        (reply(200, PNG), "image/png.*RestSyncConnector", False),
        (reply(200, json={"error": {"message": "no such model"}}), "no such model", False),
        (reply(200, json={"error": "busy", "code": 503}), "busy", True),
        (reply(200, json={"error": True, "message": "no paint", "success": False}), "no paint", False),
    ],
)
async def test_any_other_answer_is_an_error_which_is_asked_for_again_only_if_it_is_empty(
    connector_context: ConnectorContext, answer: Answer, words: str, retry: bool
) -> None:
    async with open_faulty_server(answer) as service, open_limited(service.url, connector_context) as connector:
        with pytest.raises(ServiceError, match=words) as caught:
            await run_job(connector, job())
    assert caught.value.retry is retry


async def test_work_that_cannot_be_looked_up_is_begun_twice_at_most(connector_context: ConnectorContext) -> None:
    checkpoint = None
    async with (
        open_faulty_server(cut(reply(), 5)) as service,
        open_limited(service.url, connector_context) as connector,
    ):
        for attempt, retry in ((1, True), (2, False), (3, False)):
            context = FakeAttempt()
            with pytest.raises(ServiceError) as caught:
                await run_job(connector, job(attempt=attempt, checkpoint=checkpoint), context)
            checkpoint = context.checkpoint or checkpoint
            assert caught.value.retry is retry
        assert len(service.requests) == 2


async def test_a_cancel_closes_the_connection(connector_context: ConnectorContext) -> None:
    async with open_faulty_server(hang()) as service, open_limited(service.url, connector_context) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job())
                await service.received(1)
                nursery.cancel_scope.cancel()
            await service.emptied()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (403, False), (503, False)])
async def test_health_is_what_the_service_says(connector_context: ConnectorContext, status: int, healthy: bool) -> None:
    async with open_faulty_server(reply(status)) as service, open_limited(service.url, connector_context) as connector:
        found = await connector.health()
    assert (found.healthy, bool(found.detail)) == (healthy, not healthy)
    assert service.requests[0].target == "/health"
