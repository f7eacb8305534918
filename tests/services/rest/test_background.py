"""A service that works under an id, configured and not programmed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, DeadlineExceeded, ServiceError
from emp_trio.services.connector import Connector
from emp_trio.services.rest.background import RestAsyncConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from tests.services.rest.support import IMAGE, KEY, LATER, Studio, configured, open_rest
from tests.services.support import job, stored

CAT = {"prompt": "a cat"}
FIRST = "work 1?#"
Changes = dict[str, Any]


@pytest.fixture
async def connector(studio: Studio, connector_context: ConnectorContext) -> AsyncIterator[Connector]:
    async with open_rest("RestAsyncConnector", studio.base_url, connector_context, LATER) as connector:
        yield connector


async def left_running(connector: Connector, studio: Studio, **reporter: Any) -> FakeAttempt:
    """An attempt that was cancelled while its work was being done; what it has left behind."""
    studio.first_state = "painting"
    told = FakeAttempt(**reporter)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(CAT), told)
            await studio.until("look")
            nursery.cancel_scope.cancel()
    return told


async def test_work_is_begun_followed_and_fetched(connector: Connector, studio: Studio, tmp_path: Path) -> None:
    studio.first_state = "painting"
    context = FakeAttempt()

    async def finish() -> None:
        await studio.until("look", 2)
        studio.end("ready")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        result = await run_job(connector, job(CAT, id="j-7"), context)
    assert studio.requests[0].body == {"text": "a cat", "steps": 4, "ref": "j-7"}
    assert result.data["text"] == "a cat, painted"
    assert result.data["result"] == {"brush": 7}
    assert list(stored(tmp_path / "assets").values()) == [IMAGE]
    assert result.service_metadata["service_job_id"] == FIRST
    assert context.checkpoint == {"work_id": FIRST}
    told = {(report.value, report.message) for report in context.reports}
    assert (47.5, "the service says: painting") in told
    assert context.reports[-1].value == 100


async def test_a_result_may_come_with_the_status(connector_context: ConnectorContext) -> None:
    done = {"id": "w", "status": "completed", "result": {"answer": 42}}
    async with (
        open_faulty_server(reply(200, json={"id": "w"}), reply(200, json=done)) as service,
        open_rest(
            "RestAsyncConnector", service.url, connector_context, {"interval": 0.01, "result_at": "result"}
        ) as connector,
    ):
        result = await run_job(connector, job(CAT))
    assert result.data == {"result": {"answer": 42}}
    assert [request.target for request in service.requests] == ["/", "/status/w"]


@pytest.mark.parametrize(
    ("method", "checkpoints"), [("POST", [{"calls": 1}, {"work_id": "w"}]), ("PUT", [{"work_id": "w"}])]
)
async def test_only_a_call_that_must_not_be_repeated_is_counted(
    connector_context: ConnectorContext, method: str, checkpoints: list[dict[str, Any]]
) -> None:
    class Recorder(FakeAttempt):
        async def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
            seen.append(dict(checkpoint))
            await super().save_checkpoint(checkpoint)

    seen: list[dict[str, Any]] = []
    done = {"id": "w", "status": "completed", "result": 1}
    async with (
        open_faulty_server(reply(200, json={"id": "w"}), reply(200, json=done)) as service,
        open_rest(
            "RestAsyncConnector", service.url, connector_context, {"interval": 0.01, "method": method}
        ) as connector,
    ):
        await run_job(connector, job(CAT), Recorder())
    assert seen == checkpoints


@pytest.mark.parametrize(("state", "retry"), [("broken", True), ("cancelled", False)])
async def test_failed_work_is_told_in_the_services_words(
    connector: Connector, studio: Studio, state: str, retry: bool
) -> None:
    studio.first_state = "painting"
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            await studio.until("look")
            studio.end(state, fault=f"no paint for {KEY}")

        nursery.start_soon(fail)
        with pytest.raises(ServiceError, match=r"no paint for \*\*\*") as caught:
            await run_job(connector, job(CAT))
    assert caught.value.retry is retry


@pytest.mark.parametrize(("stop_remote_work", "state"), [(True, "cancelled"), (False, "painting")])
async def test_a_cancel_reaches_the_service_only_where_the_job_is_over(
    connector: Connector, studio: Studio, stop_remote_work: bool, state: str
) -> None:
    await left_running(connector, studio, stop_remote_work=stop_remote_work)
    assert studio.works[FIRST]["state"] == state


async def test_a_deadline_ends_the_work_too(connector: Connector, studio: Studio) -> None:
    studio.first_state = "painting"
    limits = StageLimits(upload=0.05, cdn=0.05, settle=0.05)
    with pytest.raises(DeadlineExceeded):
        await run_job(connector, job(CAT), FakeAttempt(0.4, limits=limits))
    assert studio.works[FIRST]["state"] == "cancelled"


async def test_a_next_attempt_adopts_what_is_running(connector: Connector, studio: Studio) -> None:
    told = await left_running(connector, studio, stop_remote_work=False)
    studio.end("ready")
    result = await run_job(connector, job(CAT, attempt=2, checkpoint=told.checkpoint))
    assert result.service_metadata["service_job_id"] == FIRST
    assert studio.count("begin") == 1


@pytest.mark.parametrize("remembered", ["forgotten", "broken", "cancelled"])
async def test_a_next_attempt_begins_anew_where_there_is_nothing_to_adopt(
    connector: Connector, studio: Studio, remembered: str
) -> None:
    told = await left_running(connector, studio, stop_remote_work=False)
    studio.first_state = "ready"
    if remembered == "forgotten":
        studio.works.clear()
    studio.end(remembered)
    assert (await run_job(connector, job(CAT, attempt=2, checkpoint=told.checkpoint))).success
    assert studio.count("begin") == 2


async def test_a_cancel_while_the_work_is_being_begun_stops_it(connector: Connector, studio: Studio) -> None:
    studio.first_state = "painting"
    studio.inject("begin", delay=0.2)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(CAT), FakeAttempt())
            await studio.until("begin")
            nursery.cancel_scope.cancel()
    assert studio.works[FIRST]["state"] == "cancelled"


async def test_without_a_cancel_path_the_work_goes_on(studio: Studio, connector_context: ConnectorContext) -> None:
    plan = {name: value for name, value in LATER.items() if not name.startswith("cancel_")}
    async with open_rest("RestAsyncConnector", studio.base_url, connector_context, plan) as connector:
        await left_running(connector, studio)
        assert not connector.features(connector.settings).cancellation
    assert studio.works[FIRST]["state"] == "painting"
    assert RestAsyncConnector.features(configured("RestAsyncConnector", LATER)).cancellation


@pytest.mark.parametrize(("attempts_left", "state"), [(True, "painting"), (False, "cancelled")])
async def test_work_that_takes_too_long_is_left_to_the_next_attempt_as_long_as_there_is_one(
    studio: Studio, connector_context: ConnectorContext, attempts_left: bool, state: str
) -> None:
    studio.first_state = "painting"
    async with open_rest("RestAsyncConnector", studio.base_url, connector_context, LATER, attempts=3) as connector:
        with pytest.raises(ServiceError, match="status is 'painting'") as caught:
            await run_job(connector, job(CAT, max_attempts=3 if attempts_left else 1))
    assert (caught.value.type, caught.value.reason, caught.value.retry) == ("timeout", "processing_timeout", True)
    assert studio.works[FIRST]["state"] == state


@pytest.mark.parametrize("word", ["broken", "cancelled"])
async def test_work_that_has_ended_without_a_result_is_not_looked_at_again(
    connector: Connector, studio: Studio, word: str
) -> None:
    studio.first_state = word
    with pytest.raises(ServiceError, match=word) as caught:
        await run_job(connector, job(CAT))
    assert caught.value.retry is (word == "broken")
    assert (studio.count("begin"), studio.count("look")) == (1, 1)


@pytest.mark.parametrize("word", ["FAILED", "error", "Expired", "incomplete", "aborted", "timed_out", "canceled"])
async def test_words_for_a_bad_end_are_known_without_settings(
    studio: Studio, connector_context: ConnectorContext, word: str
) -> None:
    studio.first_state = word
    plan = {name: value for name, value in LATER.items() if not name.endswith("_words")}
    async with open_rest("RestAsyncConnector", studio.base_url, connector_context, plan) as connector:
        with pytest.raises(ServiceError, match=word):
            await run_job(connector, job(CAT))
    assert studio.count("look") == 1


async def test_a_pause_that_the_service_asks_for_between_two_looks_is_kept(
    studio: Studio, connector_context: ConnectorContext
) -> None:
    studio.first_state = "painting"
    studio.inject("look", headers={"retry-after": "0.3"}, after=True)
    async with open_rest("RestAsyncConnector", studio.base_url, connector_context, LATER) as connector:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(CAT))
                await studio.until("look")
                began = trio.current_time()
                await studio.until("look", 2)
                assert trio.current_time() - began >= 0.29
                studio.end("ready")


async def test_looks_that_fail_are_put_up_with(connector: Connector, studio: Studio) -> None:
    studio.inject("look", status=502, times=3)
    studio.inject("look", status=404)
    studio.inject("look", body=b"<html>")
    assert (await run_job(connector, job(CAT))).success


async def test_a_begin_that_may_have_run_is_repeated_once(connector: Connector, studio: Studio) -> None:
    checkpoint = None
    for attempt in (1, 2):
        context = FakeAttempt()
        studio.inject("begin", cut=0, after=True)
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(CAT, attempt=attempt, checkpoint=checkpoint), context)
        checkpoint = context.checkpoint
        assert caught.value.retry is (attempt == 1)
    assert "the second time that it may have run" in caught.value.message
    assert studio.count("begin") == 2


async def test_work_that_the_service_has_lost_is_worth_another_attempt(connector: Connector, studio: Studio) -> None:
    studio.inject("look", status=404, times=6)
    with pytest.raises(ServiceError) as caught:
        await run_job(connector, job(CAT))
    assert (caught.value.type, caught.value.retry) == ("response_error", True)


HOSTILE: list[tuple[Any, Any, str]] = [
    ({}, None, "an id of the work is wanted at '/job/id'"),
    ({"job": {"id": ".."}}, None, "an id of the work"),
    ({"job": []}, None, "an id of the work"),
    ([], None, "an id of the work"),
    ({"job": {"id": "w"}}, {}, "a status is wanted at '/job/state'"),
    ({"job": {"id": "w"}}, {"job": {"state": {}}}, "a status is wanted"),
    ({"job": {"id": "w"}}, {"job": {"state": "dancing"}}, "'dancing' is none of the done_words"),
    ({"job": {"id": "w"}}, [[]], "a status is wanted"),
]


@pytest.mark.parametrize(("begun", "looked_at", "words"), HOSTILE)
async def test_answers_that_make_no_sense_are_errors_of_the_service(
    connector_context: ConnectorContext, begun: Any, looked_at: Any, words: str
) -> None:
    answers = [reply(200, json=begun), reply(200, json=looked_at)]
    async with (
        open_faulty_server(*answers) as service,
        open_rest("RestAsyncConnector", service.url, connector_context, LATER, errors_in_a_row=1) as connector,
    ):
        with pytest.raises(ServiceError, match=words) as caught:
            await run_job(connector, job(CAT))
    assert caught.value.type == "response_error"


async def test_an_upload_that_fails_costs_no_second_work(connector: Connector, studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "assets").write_text("a file where the folder should be")
    context = FakeAttempt()
    with pytest.raises(AssetError):
        await run_job(connector, job(CAT), context)
    (tmp_path / "assets").unlink()
    result = await run_job(connector, job(CAT, attempt=2, checkpoint=context.checkpoint))
    assert len(result.output_files) == 1
    assert (studio.count("begin"), studio.count("output")) == (1, 1)


async def test_so_many_jobs_at_once(studio: Studio, connector_context: ConnectorContext) -> None:
    studio.first_state = "painting"
    async with open_rest(
        "RestAsyncConnector", studio.base_url, connector_context, LATER, max_concurrent_jobs=2
    ) as connector:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(run_job, connector, job(CAT, id=f"j{number}"))
                await studio.until("look", 20)
                assert studio.count("begin") == 2
                studio.first_state = "ready"
                studio.end("ready")
    assert studio.count("begin") == 3


TOLD = LATER | {
    "result_path": None,
    "result_at": "",
    "text_at": "/job/words",
    "files_at": "/job/images",
    "failed_words": ["failed", "cancelled", "expired", "incomplete"],
    "done_words": ["succeeded"],
    "running_words": [],
}
BEGUN = reply(200, json={"job": {"id": "w", "state": "Queued"}})


@pytest.mark.parametrize("word", ["FAILED", "Cancelled", "expired", "Incomplete", "SUCCEEDED"])
@pytest.mark.parametrize("words", ["a cat", ""])
async def test_what_work_has_made_is_kept_however_it_ends(
    connector_context: ConnectorContext, tmp_path: Path, word: str, words: str
) -> None:
    made = {"images": [f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}"], "words": words}
    end = {"id": "w", "state": word, "fault": "Too late."}
    answers = BEGUN, reply(200, json={"job": end | made}), BEGUN, reply(200, json={"job": end | {"words": ""}})
    async with (
        open_faulty_server(*answers) as faulty,
        open_rest("RestAsyncConnector", faulty.url, connector_context, TOLD) as connector,
    ):
        result = await run_job(connector, job(CAT))
        assert len(faulty.requests) == 2
        with pytest.raises(ServiceError, match="Too late"):
            await run_job(connector, job(CAT, id="job-2"))
        assert len(faulty.requests) == 4
    assert list(stored(tmp_path / "assets").values()) == [IMAGE]
    assert ("Too late" in str(result.metadata.get("warnings"))) is (word != "SUCCEEDED")


@pytest.mark.parametrize(("words", "kept"), [("a cat", True), ("Too  late.", False), (" ", False), (None, False)])
async def test_words_of_failed_work_are_kept_unless_they_are_its_error(
    connector_context: ConnectorContext, words: Any, kept: bool
) -> None:
    places = {name: value for name, value in TOLD.items() if name not in ("files_at", "file_at")}
    end = reply(200, json={"job": {"state": "failed", "fault": "Too late.", "words": words}})
    async with (
        open_faulty_server(BEGUN, end) as faulty,
        open_rest("RestAsyncConnector", faulty.url, connector_context, places) as connector,
    ):
        if kept:
            assert (await run_job(connector, job(CAT))).data["text"] == words
        else:
            with pytest.raises(ServiceError, match="Too late"):
                await run_job(connector, job(CAT))
