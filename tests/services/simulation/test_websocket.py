"""The connector of the simulated WebSocket service, against the service itself."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import ConfigError, DeadlineExceeded, ServiceError
from emp_trio.jobs import JobContext, JobResult
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.services.connector import open_connector
from emp_trio.services.simulation.job import SimulationSettings
from emp_trio.services.simulation.websocket import SimulationWebsocketConnector
from emp_trio.testing.attempt import FakeAttempt, run_job
from emp_trio.testing.faulty_server import open_faulty_server
from emp_trio.testing.faulty_websocket import Peer, websocket
from emp_trio.testing.png import make_png
from emp_trio.testing.sim_websocket import SimulatedWebsocketService, open_simulated_websocket
from tests.services.support import job, stored
from tests.testing.test_png import chunks

IMAGE = base64.b64encode(make_png(8, 8)).decode()
LONG = {"simulate": {"seconds": 3600}}
SHORT = {"simulate": {"seconds": 0.05}}


@asynccontextmanager
async def open_simulation(
    url: str, connector_context: ConnectorContext, *, handshake_timeout: float = 5.0
) -> AsyncIterator[SimulationWebsocketConnector]:
    settings = SimulationWebsocketConnector.Settings(
        websocket=WebSocketSettings(url=url, handshake_timeout=handshake_timeout),
        simulation=SimulationSettings(progress_interval_ms=20),
        reconnect_delay=0.02,
        reconnect_cap=0.1,
    )
    async with open_connector(SimulationWebsocketConnector, settings, connector_context) as connector:
        yield connector


@pytest.fixture
async def service() -> AsyncIterator[SimulatedWebsocketService]:
    async with open_simulated_websocket() as service:
        yield service


@pytest.fixture
async def connector(
    service: SimulatedWebsocketService, connector_context: ConnectorContext
) -> AsyncIterator[SimulationWebsocketConnector]:
    async with open_simulation(service.url, connector_context) as connector:
        yield connector


async def test_a_job_runs_and_reports(connector: SimulationWebsocketConnector) -> None:
    context = FakeAttempt()
    payload = {"simulate": {"seconds": 0.2, "steps": 20}}
    result = await run_job(connector, job(payload), context)
    assert result.success
    assert result.data["simulation_id"] == "wsim-1"
    assert result.data["job_payload"] == payload
    assert result.data["processing_time_ms"] == 200
    assert result.data["results"]["protocol"] == "websocket"
    values = [report.value for report in context.reports]
    assert values == sorted(values)
    assert len(values) >= 4
    assert values[-1] == 100


async def test_the_image_is_saved_where_it_is_asked_for(
    connector: SimulationWebsocketConnector, tmp_path: Path
) -> None:
    payload = {"simulate": {"seconds": 0.02, "bytes": 2_000_000}, "save_assets": True}
    result = await run_job(connector, job(payload))
    ((name, content),) = stored(tmp_path / "assets").items()
    assert b"IDAT" in chunks(content)
    assert result.output_files[0].size_bytes == len(content) == 2_000_000
    assert result.metadata["saved_asset"]["fileName"] == name
    assert result.data["image_url"] == result.output_files[0].metadata["cdn_url"]


@pytest.mark.parametrize(
    ("end", "files"),
    [
        ({"type": "simulation_complete", "outputs": {"images": [IMAGE, "broken"]}}, 1),
        ({"type": "completed", "outputs": [{"b64_json": IMAGE}]}, 1),
        ({"type": "simulation_error", "error": "late", "outputs": {"images": [IMAGE]}}, 1),
        ({"type": "simulation_complete", "outputs": {}}, 0),
        ({"type": "simulation_complete"}, 0),
    ],
)
async def test_a_image_that_has_been_made_is_kept_and_none_is_no_success(
    connector_context: ConnectorContext, end: dict[str, Any], files: int
) -> None:
    async def script(peer: Peer) -> None:
        asked = json.loads(await peer.receive())
        await peer.send(json.dumps(end | {"job_id": asked["job_id"]}))
        await peer.listen()

    async with (
        open_faulty_server(websocket(script)) as faulty,
        open_simulation(faulty.url.replace("http", "ws"), connector_context) as connector,
    ):
        if files:
            assert len((await run_job(connector, job({"save_assets": True}))).output_files) == files
        else:
            with pytest.raises(ServiceError, match="no file"):
                await run_job(connector, job({"save_assets": True}))


async def test_jobs_share_one_socket_and_each_gets_its_own_result(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService
) -> None:
    results: dict[int, JobResult] = {}

    async def run(number: int) -> None:
        payload = {"number": number, "simulate": {"seconds": 0.02 * (20 - number)}}
        results[number] = await run_job(connector, job(payload, id=f"job-{number}"))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
    assert service.sockets == 1
    assert [results[number].data["job_payload"]["number"] for number in range(20)] == list(range(20))
    assert len({result.data["simulation_id"] for result in results.values()}) == 20


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_failure_of_the_service_is_told(connector: SimulationWebsocketConnector, retryable: bool) -> None:
    payload = {"simulate": {"seconds": 0.02, "fail": "out of paint", "retryable": retryable}}
    with pytest.raises(ServiceError, match="out of paint") as caught:
        await run_job(connector, job(payload))
    assert caught.value.retry is retryable


async def test_wrong_steering_is_refused_by_the_service(connector: SimulationWebsocketConnector) -> None:
    with pytest.raises(ServiceError, match="steps") as caught:
        await run_job(connector, job({"simulate": {"steps": "many"}}))
    assert not caught.value.retry


async def test_a_lost_socket_fails_its_jobs_at_once_and_the_next_one_finds_a_new_socket(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService
) -> None:
    errors: list[ServiceError] = []

    async def run(number: int) -> None:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(LONG, id=f"job-{number}"))
        errors.append(caught.value)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(run, number)
            await service.until_started(5)
            await service.drop_sockets()
        assert [(error.type, error.retry, error.maybe_started) for error in errors] == [
            ("network_error", True, True)
        ] * 5
        result = await run_job(connector, job(SHORT, id="job-0", attempt=2))
    assert result.success
    assert service.sockets == 2


@pytest.mark.parametrize("stop_remote_work", [True, False])
async def test_a_cancel_reaches_the_service_as_nobody_could_adopt_the_work(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService, stop_remote_work: bool
) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, connector, job(LONG), FakeAttempt(stop_remote_work=stop_remote_work))
            await service.until_started(1)
            nursery.cancel_scope.cancel()
        await service.until_cancelled(1)
        assert (await run_job(connector, job(SHORT, id="another"))).success  # the service has read all before it
    assert service.states().count("cancelled") == 1


async def test_a_next_attempt_is_not_confused_by_an_earlier_one(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService
) -> None:
    async with trio.open_nursery() as nursery:
        payload = {"simulate": {"seconds": 0.1, "fail": "of the first attempt"}}
        nursery.start_soon(run_job, connector, job(payload), FakeAttempt(stop_remote_work=False))
        await service.until_started(1)
        nursery.cancel_scope.cancel()
    assert (await run_job(connector, job({"simulate": {"seconds": 0.3}}, attempt=2))).success


async def test_a_deadline_ends_the_job_in_the_service_too(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService
) -> None:
    context = FakeAttempt(0.4, limits=StageLimits(upload=0.05, cdn=0.05, settle=0.05))
    with pytest.raises(DeadlineExceeded) as caught:
        await run_job(connector, job(LONG), context)
    assert caught.value.stage == "service"
    with trio.fail_after(60):
        await service.until_cancelled(1)


async def test_a_service_that_is_away_and_comes_back(connector_context: ConnectorContext) -> None:
    async with open_simulated_websocket() as service:
        url = service.url
    async with open_simulation(url, connector_context, handshake_timeout=0.3) as connector:
        with pytest.raises(ServiceError) as caught:
            await run_job(connector, job(SHORT))
        assert (caught.value.type, caught.value.retry, caught.value.maybe_started) == ("network_error", True, False)
        health = await connector.health()
        assert not health.healthy
        assert health.detail
        async with open_simulated_websocket(int(url.rsplit(":", 1)[1])):
            assert (await run_job(connector, job(SHORT))).success
            assert (await connector.health()).healthy


async def test_storage_that_cannot_work_is_found_out_before_the_service_is_troubled(
    connector: SimulationWebsocketConnector, service: SimulatedWebsocketService
) -> None:
    with pytest.raises(ConfigError):
        await run_job(connector, job(SHORT | {"save_assets": True}, ctx=JobContext(provider="azure")))
    assert not service.jobs


async def test_an_error_in_the_block_of_an_open_connector_comes_out_alone(
    service: SimulatedWebsocketService, connector_context: ConnectorContext
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_simulation(service.url, connector_context):
            raise ZeroDivisionError
