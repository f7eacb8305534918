"""The connector of the simulated HTTP service, against the service itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import AssetError, ConfigError, DeadlineExceeded, ServiceError
from emp_trio.jobs import JobContext
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.simulation.http import SimulationHttpConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server, reply
from emp_trio.testing.serve import open_server
from emp_trio.testing.sim_http import SimulatedHttpService, open_simulated_http
from tests.services.support import job, stored
from tests.testing.test_png import chunks

LONG = {"simulate": {"seconds": 3600}}
SHORT = {"simulate": {"seconds": 0.05}}


@asynccontextmanager
async def open_simulation(
    base_url: str, connector_context: ConnectorContext, **http: Any
) -> AsyncIterator[SimulationHttpConnector]:
    settings = SimulationHttpConnector.Settings(
        http=HttpSettings(base_url=base_url, retry_delay=0.01, verify_tls=False, **http),
        polling=PollingSettings(interval=0.01, attempts=10_000),
    )
    async with open_connector(SimulationHttpConnector, settings, connector_context) as connector:
        yield connector


@pytest.fixture
async def service() -> AsyncIterator[SimulatedHttpService]:
    async with open_simulated_http() as service:
        yield service


@pytest.fixture
async def connector(
    service: SimulatedHttpService, connector_context: ConnectorContext
) -> AsyncIterator[SimulationHttpConnector]:
    async with open_simulation(service.base_url, connector_context) as connector:
        yield connector


async def test_a_job_runs_and_reports(connector: SimulationHttpConnector, service: SimulatedHttpService) -> None:
    context = FakeAttempt()
    payload = {"simulate": {"seconds": 1.0, "steps": 4}, "prompt": "a cat"}
    result = await run_job(connector, job(payload), context)
    assert result.success
    assert result.data["simulation_id"] == "sim-1"
    assert result.data["job_payload"] == payload
    assert result.data["processing_time_ms"] == pytest.approx(1000)
    assert result.data["results"].keys() == {"iterations", "final_value", "convergence"}
    assert result.output_files == ()
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert {27.5, 50.0, 72.5} <= set(values)
    assert values[-1] == 100
    assert context.checkpoint == {"simulation_id": "sim-1"}


async def test_credentials_in_a_payload_go_nowhere(
    connector: SimulationHttpConnector, service: SimulatedHttpService
) -> None:
    result = await run_job(connector, job(SHORT | {"ctx": {"storage": {"accountKey": "c2VjcmV0"}}}))
    assert "c2VjcmV0" not in repr(result)
    assert result.raw_request_payload["payload"] == SHORT


async def test_the_image_is_saved_where_it_is_asked_for(connector: SimulationHttpConnector, tmp_path: Path) -> None:
    result = await run_job(connector, job(SHORT | {"save_assets": True}))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert b"IDAT" in chunks(content)
    assert result.output_files[0].filename == name == result.metadata["saved_asset"]["fileName"]
    assert result.data["image_url"] == result.output_files[0].metadata["cdn_url"]
    assert (result.data["mime_type"], result.data["content_type"]) == ("image/png", "image")


async def test_a_larger_image_arrives_whole(connector: SimulationHttpConnector, tmp_path: Path) -> None:
    payload = {"simulate": {"seconds": 0, "bytes": 5_000_000}, "save_assets": True}
    result = await run_job(connector, job(payload))
    ((_, content),) = stored(tmp_path / "assets").items()
    assert result.output_files[0].size_bytes == len(content) == 5_000_000
    assert b"IDAT" in chunks(content)


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_failure_of_the_service_is_told(connector: SimulationHttpConnector, retryable: bool) -> None:
    payload = {"simulate": {"seconds": 0.02, "fail": "out of paint", "retryable": retryable}}
    with pytest.raises(ServiceError, match="out of paint") as caught:
        await run_job(connector, job(payload))
    assert caught.value.retry is retryable


async def test_wrong_steering_is_refused_by_the_service(connector: SimulationHttpConnector) -> None:
    with pytest.raises(ServiceError, match="steps") as caught:
        await run_job(connector, job({"simulate": {"steps": "many"}}))
    assert caught.value.status == 400
    assert not caught.value.retry


async def test_a_job_cancelled_in_the_service_fails_for_good(
    connector: SimulationHttpConnector, service: SimulatedHttpService
) -> None:
    async with trio.open_nursery() as nursery:

        async def cancel() -> None:
            await service.until_started(1)
            service.jobs["sim-1"].cancel(trio.current_time())

        nursery.start_soon(cancel)
        with pytest.raises(ServiceError, match="cancelled in the service") as caught:
            await run_job(connector, job(LONG))
    assert not caught.value.retry


@pytest.mark.parametrize(("stop_remote_work", "state"), [(True, "cancelled"), (False, "running")])
async def test_a_cancel_reaches_the_service_only_where_the_job_is_over(
    connector: SimulationHttpConnector, service: SimulatedHttpService, stop_remote_work: bool, state: str
) -> None:
    context = FakeAttempt(stop_remote_work=stop_remote_work)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(LONG), context)
            await context.until_remembered()
            nursery.cancel_scope.cancel()
    assert service.states() == [state]


async def test_a_deadline_ends_the_job_in_the_service_too(
    connector: SimulationHttpConnector, service: SimulatedHttpService
) -> None:
    context = FakeAttempt(0.4, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    with pytest.raises(DeadlineExceeded) as caught:
        await run_job(connector, job(LONG), context)
    assert caught.value.stage == "service"
    assert service.states() == ["cancelled"]


async def test_a_next_attempt_adopts_what_is_running(
    connector: SimulationHttpConnector, service: SimulatedHttpService
) -> None:
    context = FakeAttempt(stop_remote_work=False)
    payload = {"simulate": {"seconds": 0.3}}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_job, connector, job(payload), context)
        await context.until_remembered()
        nursery.cancel_scope.cancel()
    result = await run_job(connector, job(payload, attempt=2, checkpoint=context.checkpoint))
    assert result.data["simulation_id"] == "sim-1"
    assert len(service.jobs) == 1


@pytest.mark.parametrize("remembered", ["forgotten", "failed"])
async def test_a_next_attempt_starts_anew_where_there_is_nothing_to_adopt(
    connector: SimulationHttpConnector, service: SimulatedHttpService, remembered: str
) -> None:
    if remembered == "failed":
        with pytest.raises(ServiceError):
            await run_job(connector, job({"simulate": {"seconds": 0, "fail": "no paint"}}))
    jobs = len(service.jobs)
    result = await run_job(connector, job(SHORT, attempt=2, checkpoint={"simulation_id": f"sim-{jobs or 99}"}))
    assert result.success
    assert len(service.jobs) == jobs + 1


async def test_a_service_that_is_away_is_worth_a_retry(connector_context: ConnectorContext) -> None:
    async with open_simulated_http() as service:
        gone = service.base_url
    async with open_simulation(gone, connector_context, max_retries=1) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(SHORT))
        health = await connector.health()
    assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, False)
    assert not health.healthy
    assert health.detail


@pytest.mark.parametrize("history", [7, None, "running", []])
async def test_what_is_no_history_is_not_asked_for_until_the_time_is_up(
    connector_context: ConnectorContext, history: Any
) -> None:
    started = reply(200, json={"simulation_id": "sim-1"})
    async with (
        open_faulty_server(started, reply(200, json=history)) as faulty,
        open_simulation(faulty.url, connector_context) as connector,
    ):
        with pytest.raises(ServiceError, match="a history was expected") as caught:
            await run_job(connector, job(SHORT))
    assert caught.value.retry
    assert len(faulty.requests) < 10


async def test_storage_that_cannot_work_is_found_out_before_the_service_is_troubled(
    connector: SimulationHttpConnector, service: SimulatedHttpService
) -> None:
    with pytest.raises(ConfigError):
        await run_job(connector, job(SHORT | {"save_assets": True}, ctx=JobContext(provider="azure")))
    assert not service.jobs


async def test_an_upload_that_fails_is_an_asset_error(connector: SimulationHttpConnector, tmp_path: Path) -> None:
    (tmp_path / "assets").write_text("a file where the folder should be")
    context = FakeAttempt(limits=StageLimits(upload=0.5, cdn=0.1, settle=0.1))
    with pytest.raises(AssetError):
        await run_job(connector, job(SHORT | {"save_assets": True}), context)


async def test_the_service_is_healthy_while_it_runs(connector: SimulationHttpConnector) -> None:
    assert (await connector.health()).healthy


@pytest.mark.parametrize("outputs", [{}, {"images": []}, None])
async def test_a_simulation_without_the_image_that_was_asked_for_is_no_success(
    connector_context: ConnectorContext, outputs: object
) -> None:
    begun = []

    async def process(request: Request) -> Response:
        begun.append(1)
        return JSONResponse({"simulation_id": "s1"})

    async def history(request: Request) -> Response:
        return JSONResponse({"s1": {"status": "success", "outputs": outputs}})

    bare = Starlette(routes=[Route("/process", process, methods=["POST"]), Route("/history/{id}", history)])
    async with open_server(bare) as url, open_simulation(url, connector_context) as connector:
        with pytest.raises(ServiceError, match="no file"):
            await run_job(connector, job({"save_assets": True}))
        assert (await run_job(connector, job())).success
    assert len(begun) == 2


async def test_the_older_service_is_understood(connector_context: ConnectorContext) -> None:
    """It answers ``{}`` while a job runs, and calls the id ``prompt_id`` (connector reference 3.2)."""
    answers = iter([{}, {}, {"p1": {"status": "success", "outputs": {}}}])

    async def process(request: Request) -> Response:
        return JSONResponse({"prompt_id": "p1", "status": "queued"})

    async def history(request: Request) -> Response:
        return JSONResponse(next(answers))

    older = Starlette(routes=[Route("/process", process, methods=["POST"]), Route("/history/{id}", history)])
    async with open_server(older) as url, open_simulation(url, connector_context) as connector:
        result = await run_job(connector, job())
    assert result.data["simulation_id"] == "p1"
