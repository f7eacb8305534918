"""The life of a background response, for every connector that has one: polls, faults, adoption, cancel, deadline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from emp_trio.errors import ConfigError, DeadlineExceeded, LeaseLost, Refused, ServiceError
from emp_trio.jobs import JobContext, JobResult
from emp_trio.progress import StageLimits
from emp_trio.secrets import Secret
from emp_trio.services.openai.background import pause, percent
from emp_trio.testing.openai import FakeOpenAI, Script
from emp_trio.testing.reporter import FakeReporter, run_job
from emp_trio.toolbox import Toolbox
from tests.services.openai.support import BOTH, open_openai, payload_for
from tests.services.support import job

LONG = Script(seconds=3600)

connectors = pytest.mark.parametrize("cls", BOTH)


async def cut_short(connector: Any, payload: dict[str, Any], reporter: FakeReporter) -> None:
    """Run an attempt until its response is remembered, then end it as its reporter says."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(payload), reporter)
            await reporter.until_remembered()
            nursery.cancel_scope.cancel()


def statuses(openai: FakeOpenAI) -> list[str]:
    return [generation.status(trio.current_time()) for generation in openai.generations.values()]


@connectors
async def test_every_call_names_the_account_and_the_attempt(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    async with open_openai(cls, openai, toolbox, organization="org-1", project="proj-1") as connector:
        await run_job(connector, job(payload_for(cls), id="jöb", attempt=3))
    for request in openai.requests:
        assert request.headers["x-client-request-id"] == "j?b-3"
        assert request.headers["openai-organization"] == "org-1"
        assert request.headers["openai-project"] == "proj-1"


@connectors
async def test_headers_that_are_not_set_are_not_sent(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    async with open_openai(cls, openai, toolbox) as connector:
        await run_job(connector, job(payload_for(cls), id="x" * 1000))
    assert "openai-organization" not in openai.requests[0].headers
    assert len(openai.requests[0].headers["x-client-request-id"]) == 512


@connectors
async def test_the_id_is_remembered_before_the_first_poll(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = LONG
    reporter = FakeReporter(stop_upstream=False)
    async with open_openai(cls, openai, toolbox) as connector:
        await cut_short(connector, payload_for(cls), reporter)
    assert reporter.checkpoint == {"response_id": next(iter(openai.generations))}
    assert openai.count("retrieve") <= 1


@connectors
async def test_faults_that_pass_are_survived(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.inject("create", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "20"})
    openai.inject("create", status=503, code="server_is_overloaded", type="service_unavailable_error")
    openai.inject("retrieve", status=500, times=2)
    openai.inject("retrieve", body=b"<html>Bad gateway</html>", status=502, times=2)
    async with open_openai(cls, openai, toolbox) as connector:
        result = await run_job(connector, job(payload_for(cls)))
    assert result.success
    assert (openai.count("create"), openai.billed) == (3, 1)


@connectors
async def test_five_failed_polls_in_a_row_hand_the_job_back(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = LONG
    openai.inject("retrieve", status=500, code="server_error", times=5)
    reporter = FakeReporter()
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)), reporter)
    assert (caught.value.status, caught.value.retry) == (500, True)
    assert openai.count("retrieve") == 5
    assert statuses(openai) == ["in_progress"]  # for the next attempt to adopt
    assert reporter.checkpoint is not None


@connectors
async def test_a_response_that_expired_is_final(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.inject("retrieve", status=404, type="invalid_request_error", message="Response with id 'x' not found.")
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.retry) == ("response_error", False)


@connectors
@pytest.mark.parametrize("code", ["insufficient_quota", "credit_balance_exhausted", "project_spend_limit_exceeded"])
async def test_an_account_without_credit_is_asked_once(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, code: str
) -> None:
    openai.inject("create", status=429, code=code, type="insufficient_quota", headers={"retry-after": "1"}, times=9)
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError, match="credit") as caught:
            await run_job(connector, job(payload_for(cls)))
    assert not caught.value.retry
    assert openai.count("create") == 1


@connectors
async def test_a_long_stated_wait_is_handed_to_the_queue(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.inject("create", status=429, code="rate_limit_exceeded", headers={"retry-after": "600"}, times=9)
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.retry, caught.value.retry_after) == (True, 600)
    assert openai.count("create") == 1


@connectors
async def test_a_create_that_may_have_run_is_not_repeated_here(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.inject("create", status=500, code="server_error", after=True, times=9)
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.retry, caught.value.maybe_started) == (True, True)
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"id": 7}', b'"resp"', b"null"])
async def test_a_create_without_an_id_may_have_run(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, answer: bytes
) -> None:
    openai.inject("create", body=answer)
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.maybe_started) == ("response_error", True)


@connectors
async def test_storage_that_cannot_work_is_found_out_before_anything_is_paid(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any
) -> None:
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(ConfigError):
            await run_job(connector, job(payload_for(cls), ctx=JobContext(provider="azure")))
    assert openai.requests == []


# What a crash, a drain or a lost lease leaves behind.


@connectors
@pytest.mark.parametrize("finished", [True, False])
async def test_a_next_attempt_adopts_the_response_and_nothing_is_paid_twice(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, finished: bool
) -> None:
    openai.script = LONG
    reporter = FakeReporter(stop_upstream=False)
    async with open_openai(cls, openai, toolbox) as first:
        await cut_short(first, payload_for(cls), reporter)
    assert statuses(openai) == ["in_progress"]
    if finished:
        openai.finish_all()
    async with open_openai(cls, openai, toolbox) as second, trio.open_nursery() as nursery:
        results: list[JobResult] = []

        async def run() -> None:
            results.append(await run_job(second, job(payload_for(cls), attempt=2, checkpoint=reporter.checkpoint)))

        looks = openai.count("retrieve")
        nursery.start_soon(run)
        with trio.fail_after(10):
            await openai.until("retrieve", looks + 2)
        openai.finish_all()
    assert results[0].service_metadata["service_job_id"] == next(iter(openai.generations))
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
async def test_an_upload_that_failed_is_not_a_reason_to_pay_again(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any
) -> None:
    class Broken:
        def check(self, job: Any) -> None: ...

        async def save(self, *args: Any, **options: Any) -> Any:
            raise ServiceError("storage is away")

    reporter = FakeReporter()
    async with open_openai(cls, openai, Toolbox(assets=Broken())) as connector:
        with pytest.raises(ServiceError, match="storage is away"):
            await run_job(connector, job(payload_for(cls)), reporter)
    async with open_openai(cls, openai, toolbox) as connector:
        result = await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=reporter.checkpoint))
    assert result.success
    assert (openai.count("create"), openai.billed) == (1, 1)


@connectors
@pytest.mark.parametrize("reason", ["forgotten", "cancelled", "failed", "garbage"])
async def test_what_cannot_be_adopted_is_started_anew(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, reason: str
) -> None:
    openai.script = Script(status="failed") if reason == "failed" else LONG
    reporter = FakeReporter(stop_upstream=reason == "cancelled")
    async with open_openai(cls, openai, toolbox) as connector:
        await cut_short(connector, payload_for(cls), reporter)
        checkpoint: Any = reporter.checkpoint
        if reason == "forgotten":
            openai.generations.clear()
        if reason == "garbage":
            checkpoint = {"response_id": ["resp_1"]}
        openai.finish_all()
        openai.script = Script()
        result = await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=checkpoint))
    assert result.success
    assert openai.count("create") == 2


@connectors
async def test_a_refusal_is_adopted_and_not_asked_for_again(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = Script(status="failed", error={"code": "moderation_blocked", "message": "No."}, seconds=3600)
    reporter = FakeReporter(stop_upstream=False)
    async with open_openai(cls, openai, toolbox) as connector:
        await cut_short(connector, payload_for(cls), reporter)
        openai.finish_all()
        with pytest.raises(Refused):
            await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=reporter.checkpoint))
    assert openai.count("create") == 1


@connectors
async def test_adoption_survives_a_fault_that_passes(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = LONG
    reporter = FakeReporter(stop_upstream=False)
    async with open_openai(cls, openai, toolbox) as connector:
        await cut_short(connector, payload_for(cls), reporter)
        openai.finish_all()
        openai.inject("retrieve", status=500)
        assert (await run_job(connector, job(payload_for(cls), attempt=2, checkpoint=reporter.checkpoint))).success
    assert openai.count("create") == 1


# Ways to end an attempt.


@connectors
@pytest.mark.parametrize(("stop_upstream", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_stops_the_response_only_where_the_job_is_over(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, stop_upstream: bool, status: str
) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, toolbox) as connector:
        await cut_short(connector, payload_for(cls), FakeReporter(stop_upstream=stop_upstream))
    assert statuses(openai) == [status]


@connectors
@pytest.mark.parametrize(("stop_upstream", "status"), [(True, "cancelled"), (False, "in_progress")])
async def test_a_cancel_during_the_create_call_does_not_lose_the_response(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any, stop_upstream: bool, status: str
) -> None:
    openai.script = LONG
    openai.inject("create", delay=0.3)
    reporter = FakeReporter(stop_upstream=stop_upstream)
    async with open_openai(cls, openai, toolbox) as connector:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_job, connector, job(payload_for(cls)), reporter)
                await openai.until("create")
                nursery.cancel_scope.cancel()
    assert reporter.checkpoint == {"response_id": next(iter(openai.generations))}
    assert statuses(openai) == [status]


@connectors
async def test_a_response_that_nobody_could_adopt_is_stopped(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    class Fenced(FakeReporter):
        async def remember(self, checkpoint: Mapping[str, Any]) -> None:
            raise LeaseLost("the lease is gone")

    openai.script = LONG
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(LeaseLost):
            await run_job(connector, job(payload_for(cls)), Fenced(stop_upstream=False))
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_cancel_that_the_service_does_not_answer_ends_all_the_same(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any
) -> None:
    openai.script = LONG
    openai.inject("cancel", delay=3600)
    async with open_openai(cls, openai, toolbox, cleanup_timeout=0.2) as connector:
        with trio.fail_after(5):
            await cut_short(connector, payload_for(cls), FakeReporter())


@connectors
async def test_a_deadline_stops_the_response(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = LONG
    reporter = FakeReporter(0.6, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    async with open_openai(cls, openai, toolbox) as connector:
        with pytest.raises(DeadlineExceeded) as caught:
            await run_job(connector, job(payload_for(cls)), reporter)
    assert caught.value.stage == "service"
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_response_that_takes_too_long_is_cancelled_and_fails(
    openai: FakeOpenAI, toolbox: Toolbox, cls: Any
) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, toolbox, poll_timeout=0.2) as connector:
        with pytest.raises(ServiceError, match=r"within 0\.2 s and was cancelled") as caught:
            await run_job(connector, job(payload_for(cls)))
    assert (caught.value.type, caught.value.reason) == ("timeout", "processing_timeout")
    assert statuses(openai) == ["cancelled"]


@connectors
async def test_a_response_that_ends_with_the_time_still_counts(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.script = LONG
    async with open_openai(cls, openai, toolbox, poll_timeout=0.3) as connector, trio.open_nursery() as nursery:

        async def finish() -> None:
            await openai.until("create")
            openai.inject("retrieve", delay=0.5)  # the time is up before this poll is answered
            await openai.until("retrieve")
            openai.finish_all()

        nursery.start_soon(finish)
        result = await run_job(connector, job(payload_for(cls)))
    assert result.success
    assert openai.count("cancel") == 1


# The account.


@connectors
async def test_a_wrong_key_is_never_shown(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    key = "sk-proj-a1b2c3d4e5f6g7h8"
    async with open_openai(cls, openai, toolbox, api_key=Secret(key)) as connector:
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
async def test_the_key_is_in_no_result_and_no_log(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    with capture_logs() as logs:
        async with open_openai(cls, openai, toolbox) as connector:
            result = await run_job(connector, job(payload_for(cls)))
            assert (await connector.health()).healthy
    key = openai.api_key.reveal()
    assert key not in msgspec.json.encode(result).decode()
    assert key not in str(logs)


@connectors
async def test_an_account_without_models_is_not_healthy(openai: FakeOpenAI, toolbox: Toolbox, cls: Any) -> None:
    openai.models = []
    async with open_openai(cls, openai, toolbox) as connector:
        assert (await connector.health()).detail == "the account has no models"


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 2), (9.9, 2), (10, 3), (59, 3), (60, 5), (299, 5)])
def test_looks_become_rarer(elapsed: float, seconds: float) -> None:
    assert pause(elapsed, 2.0) == seconds


def test_progress_of_a_response_grows_and_never_arrives() -> None:
    values = [percent(second) for second in range(0, 301, 10)]
    assert values == sorted(values)
    assert values[0] == 15
    assert values[-1] < 85
