"""A service that answers with the finished work, configured and not programmed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, InvalidJob, ServiceError
from emp_trio.services.connector import Connector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import Answer, cut, hang, open_faulty_server, reply, slow
from tests.services.rest.support import IMAGE, KEY, NOW, Studio, open_rest
from tests.services.support import job, stored

CAT = {"prompt": "a cat", "ctx": {"storage": {"accountKey": "c2VjcmV0"}}}


@pytest.fixture
async def connector(studio: Studio, connector_context: ConnectorContext) -> AsyncIterator[Connector]:
    async with open_rest("RestSyncConnector", studio.base_url, connector_context, NOW) as connector:
        yield connector


async def test_a_job_is_a_call_and_its_answer_a_result(connector: Connector, studio: Studio, tmp_path: Path) -> None:
    context = FakeAttempt()
    result = await run_job(connector, job(CAT, id="j-7"), context)
    asked = {"text": "a cat", "steps": 4, "ref": "j-7"}
    assert studio.requests[0].body == asked == result.raw_request_payload
    assert result.success
    assert result.data["result"] == {"brush": 7}
    assert result.data["text"] == result.data["text_content"] == "a cat, painted"
    assert (result.data["mime_type"], result.data["content_type"]) == ("image/png", "image")
    assert list(stored(tmp_path / "assets").values()) == [IMAGE]
    assert result.data["image_url"] == result.output_files[0].metadata["cdn_url"]
    assert result.metadata["saved_asset"]["fileUrl"] == result.data["image_url"]
    assert result.service_metadata["service_type"] == "rest_sync"
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert values[-1] == 100


async def test_the_payload_itself_is_the_body_where_there_is_no_template(
    studio: Studio, connector_context: ConnectorContext
) -> None:
    bare = {name: value for name, value in NOW.items() if name not in ("body", "files_at", "text_at", "result_at")}
    async with open_rest("RestSyncConnector", studio.base_url, connector_context, bare) as connector:
        result = await run_job(connector, job(CAT))
    assert studio.requests[0].body == {"prompt": "a cat"}
    assert result.data == {"result": studio.output() | {"asked": {"prompt": "a cat"}}}
    assert "c2VjcmV0" not in repr(result)


async def test_a_payload_that_lacks_something_costs_nothing(connector: Connector, studio: Studio) -> None:
    with pytest.raises(InvalidJob, match="nothing at /prompt"):
        await run_job(connector, job({}))
    assert not studio.requests


async def test_files_come_as_urls_data_urls_and_base64(
    studio: Studio, connector_context: ConnectorContext, tmp_path: Path
) -> None:
    import base64

    encoded = base64.b64encode(IMAGE).decode()
    studio.images = [{"url": f"data:image/png;base64,{encoded}"}, {"url": studio.base_url + "/files/two.png"}]
    async with open_rest("RestSyncConnector", studio.base_url, connector_context, NOW) as connector:
        assert len((await run_job(connector, job(CAT, id="a"))).output_files) == 2
    studio.images = encoded
    async with open_rest("RestSyncConnector", studio.base_url, connector_context, NOW, files_are="base64") as connector:
        result = await run_job(connector, job(CAT, id="b"))
    assert list(stored(tmp_path / "assets").values()) == [IMAGE] * 3
    assert encoded not in repr(result)
    assert studio.unauthorised == 0


@pytest.mark.parametrize("format", ["text", "binary"])
async def test_an_answer_may_be_a_text_or_a_file(
    connector_context: ConnectorContext, tmp_path: Path, format: str
) -> None:
    body = "grüße".encode() if format == "text" else IMAGE
    async with (
        open_faulty_server(reply(200, body, content_type="image/png")) as service,
        open_rest("RestSyncConnector", service.url, connector_context, {}, response_format=format) as connector,
    ):
        result = await run_job(connector, job(CAT))
    if format == "text":
        assert result.data == {"text": "grüße", "text_content": "grüße", "content_type": "text"}
    else:
        assert list(stored(tmp_path / "assets").values()) == [IMAGE]
        assert result.data["content_type"] == "image"


@pytest.mark.parametrize("format", ["text", "binary"])
async def test_an_empty_answer_is_none(connector_context: ConnectorContext, format: str) -> None:
    async with (
        open_faulty_server(reply(200)) as service,
        open_rest("RestSyncConnector", service.url, connector_context, {}, response_format=format) as connector,
    ):
        with pytest.raises(ServiceError, match="the answer is empty"):
            await run_job(connector, job(CAT))


async def test_a_get_puts_the_body_into_the_query(connector_context: ConnectorContext) -> None:
    body = {"q": {"$payload": "/prompt"}, "tags": ["a", "b"], "safe": True}
    async with (
        open_faulty_server(reply(503), reply(200, json={"n": 1})) as service,
        open_rest(
            "RestSyncConnector",
            service.url,
            connector_context,
            {"method": "GET", "path": "/find", "body": body, "retry_delay": 0.01},
        ) as connector,
    ):
        result = await run_job(connector, job(CAT))
    assert service.requests[-1].target == "/find?q=a+cat&tags=a&tags=b&safe=true"
    assert result.data == {"result": {"n": 1}}


FAILURES: list[tuple[Answer, tuple[str, str, bool]]] = [
    (reply(400, json={"fault": {"text": "no such brush"}}), ("validation_error", "invalid_payload", False)),
    (reply(401, json={"fault": {"text": "who?"}}), ("auth_error", "invalid_api_key", False)),
    (reply(404, "gone"), ("validation_error", "unsupported_operation", False)),
    (reply(429, headers={"retry-after": "7200"}), ("rate_limit", "requests_per_minute", True)),
    (reply(503, "tired"), ("service_error", "service_unavailable", True)),
    (reply(500, json={"fault": [1]}), ("service_error", "service_down", True)),
    (reply(200, "not json", content_type="application/json"), ("response_error", "invalid_response_format", True)),
    (reply(200, "<html>", content_type="text/html"), ("response_error", "unexpected_content_type", True)),
    (reply(200), ("response_error", "missing_expected_data", True)),
    (reply(200, json={}), ("response_error", "missing_expected_data", True)),
    (reply(200, json={"meta": 1, "caption": 5}), ("response_error", "missing_expected_data", True)),
    (reply(200, json=[[[[]]]]), ("response_error", "missing_expected_data", True)),
    (cut(reply(200, json={"a": "b"}), 30), ("network_error", "connection_failed", True)),
]


@pytest.mark.parametrize(("answer", "failure"), FAILURES)
async def test_every_failure_has_its_class(
    connector_context: ConnectorContext, answer: Answer, failure: tuple[str, str, bool]
) -> None:
    async with (
        open_faulty_server(answer) as service,
        open_rest("RestSyncConnector", service.url, connector_context, NOW, max_retries=0) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert (caught.value.type, caught.value.reason, caught.value.retry) == failure
    assert KEY not in str(caught.value)


async def test_an_error_is_told_in_the_services_words(connector: Connector, studio: Studio) -> None:
    studio.inject("now", status=400, fault={"text": f"no {KEY}, no brush"})
    with pytest.raises(ServiceError, match=r"answered 400: no \*\*\*, no brush"):
        await run_job(connector, job(CAT))


async def test_a_service_that_is_away_is_worth_a_retry(connector_context: ConnectorContext) -> None:
    async with open_faulty_server(reply()) as service:
        gone = service.url
    async with open_rest("RestSyncConnector", gone, connector_context, NOW, max_retries=1) as connector:
        with pytest.raises(ServiceError, match="after 2 tries") as caught:
            await run_job(connector, job(CAT))
        health = await connector.health()
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, False)
    assert (health.healthy, bool(health.detail)) == (False, True)


async def test_a_call_that_may_have_run_is_made_once_more_and_not_again(connector: Connector, studio: Studio) -> None:
    checkpoint = None
    for attempt, said in ((1, "not the second time"), (2, "the second time that it may have run")):
        context = FakeAttempt()
        studio.inject("now", cut=0, after=True)
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT, attempt=attempt, checkpoint=checkpoint), context)
        checkpoint = context.checkpoint or checkpoint
        assert caught.value.maybe_started
        assert caught.value.retry is (attempt == 1)
        assert (said in caught.value.message) is (attempt == 2)
    with pytest.raises(ServiceError, match="it is not asked again"):
        await run_job(connector, job(CAT, attempt=3, checkpoint=checkpoint))
    assert studio.count("now") == 2


async def test_an_answer_that_cannot_be_used_counts_as_work_that_was_done(connector: Connector, studio: Studio) -> None:
    studio.images = []
    context = FakeAttempt()
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job(CAT), context)
    assert (caught.value.retry, context.checkpoint) == (True, {"calls": 1})
    with pytest.raises(ServiceError, match="the second time that it may have run") as caught:
        await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
    assert not caught.value.retry


async def test_a_crash_counts_as_a_call_that_may_have_run(connector: Connector, studio: Studio) -> None:
    context = FakeAttempt(stop_remote_work=False)
    studio.inject("now", delay=3600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job(CAT), context)
        await studio.until("now")
        nursery.cancel_scope.cancel()
    assert context.checkpoint == {"calls": 1}
    assert (await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))).success


async def test_an_upload_that_fails_costs_no_second_call(connector: Connector, studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "assets").write_text("a file where the folder should be")
    with pytest.raises(AssetError):
        await run_job(connector, job(CAT))
    (tmp_path / "assets").unlink()
    result = await run_job(connector, job(CAT, attempt=2))
    assert result.data["text"] == "a cat, painted"
    assert result.data["result"] == {"brush": 7}
    assert len(result.output_files) == 1
    assert studio.count("now") == 1


async def test_a_cancel_closes_the_connection(connector_context: ConnectorContext) -> None:
    async with (
        open_faulty_server(hang()) as service,
        open_rest("RestSyncConnector", service.url, connector_context, NOW) as connector,
    ):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(CAT))
                await service.received(1)
                nursery.cancel_scope.cancel()
            await service.emptied()


async def test_a_deadline_ends_the_call(connector_context: ConnectorContext) -> None:
    async with (
        open_faulty_server(hang()) as service,
        open_rest("RestSyncConnector", service.url, connector_context, NOW) as connector,
    ):
        limits = StageLimits(upload=0.05, cdn=0.05, settle=0.05)
        with pytest.raises(DeadlineExceeded):
            await run_job(connector, job(CAT), FakeAttempt(0.4, limits=limits))


async def test_silence_may_last_as_long_as_the_call(connector_context: ConnectorContext) -> None:
    answer = slow(reply(200, json={"n": 1}), 0.3)
    async with (
        open_faulty_server(answer) as service,
        open_rest(
            "RestSyncConnector", service.url, connector_context, {"read_timeout": 0.1, "timeout": 5}
        ) as connector,
    ):
        assert (await run_job(connector, job(CAT))).success


@pytest.mark.parametrize(
    ("url", "words", "retry"),
    [
        ("http://169.254.169.254/latest/meta-data", "can't be had", False),
        ("http://127.0.0.1:9/private.png", "can't be had", False),
        ("file:///etc/passwd", "is none", True),
        ("http://[", "is none", True),
        ("gopher://x/1", "is none", True),
    ],
)
async def test_an_answer_leads_nowhere_but_to_public_files(
    connector: Connector, studio: Studio, url: str, words: str, retry: bool
) -> None:
    studio.images = url
    with pytest.raises(ServiceError, match=words) as caught:
        await run_job(connector, job(CAT))
    assert (caught.value.type, caught.value.retry) == ("response_error", retry)


async def test_the_key_goes_to_no_other_host(studio: Studio, connector_context: ConnectorContext) -> None:
    async with open_faulty_server(reply(200, IMAGE)) as other:
        studio.images = other.url + "/p.png"
        async with open_rest(
            "RestSyncConnector", studio.base_url, connector_context, NOW, input_allow_private=True
        ) as connector:
            assert len((await run_job(connector, job(CAT))).output_files) == 1
        assert KEY.encode() not in other.requests[0].head


@pytest.mark.parametrize(
    ("login", "header", "value"),
    [
        ({"api_key": KEY}, "authorization", f"Bearer {KEY}"),
        ({"api_key": KEY, "api_key_header": "X-Key"}, "x-key", KEY),
        ({"username": "me", "password": "it-is-me"}, "authorization", "Basic bWU6aXQtaXMtbWU="),
        ({}, "authorization", None),
    ],
)
async def test_credentials_are_sent_and_never_shown(
    connector_context: ConnectorContext, login: dict[str, Any], header: str, value: str | None
) -> None:
    echo = {"meta": {"you": value, "or": KEY, "and": "it-is-me"}}
    plan = login | {"result_at": "/meta", "headers": {"x-version": "2"}}
    async with (
        open_faulty_server(reply(200, json=echo)) as service,
        open_rest("RestSyncConnector", service.url, connector_context, plan) as connector,
    ):
        result = await run_job(connector, job(CAT))
        assert service.requests[0].headers.get(header) == value
        assert service.requests[0].headers["x-version"] == "2"
        assert "it-is-me" not in repr(connector.settings)
    if "api_key" in login:
        assert KEY not in repr(result)
    if "password" in login:
        assert "bWU6aXQtaXMtbWU=" not in repr(result)
        assert "it-is-me" not in repr(result)


async def test_health(connector: Connector, studio: Studio, connector_context: ConnectorContext) -> None:
    assert (await connector.health()).healthy
    studio.inject("healthy", status=503)
    assert "503" in (await connector.health()).detail


@pytest.mark.parametrize(
    ("status", "login", "healthy"),
    [
        (200, {}, True),
        (404, {}, True),
        (501, {}, True),
        (401, {}, True),
        (500, {}, False),
        (404, {"api_key": KEY}, True),
        (401, {"api_key": KEY}, False),
    ],
)
async def test_without_a_health_path_an_answer_will_do(
    connector_context: ConnectorContext, status: int, login: dict[str, Any], healthy: bool
) -> None:
    async with (
        open_faulty_server(reply(status)) as service,
        open_rest("RestSyncConnector", service.url, connector_context, login) as connector,
    ):
        assert (await connector.health()).healthy is healthy


@pytest.mark.parametrize(
    ("answer", "quoted"),
    [
        ({"fault": {"text": "out of credits"}}, "the service says out of credits"),
        ({"hologram": "xyz"}, 'the answer is {"hologram":"xyz"}'),
    ],
)
async def test_an_error_with_a_good_status_keeps_its_words(
    connector_context: ConnectorContext, answer: Any, quoted: str
) -> None:
    async with (
        open_faulty_server(reply(200, json=answer)) as service,
        open_rest("RestSyncConnector", service.url, connector_context, NOW, max_retries=0) as connector,
    ):
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT))
    assert quoted in caught.value.message
