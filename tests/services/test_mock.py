"""The connectors without a service."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from emp_trio.attempt import StageLimits
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import DeadlineExceeded, InvalidJob, ServiceError
from emp_trio.services.connector import open_connector
from emp_trio.services.mock import MockConnector
from emp_trio.services.simulation.in_process import SimulationConnector
from emp_trio.services.simulation.job import SimulationSettings
from emp_trio.testing.attempt import FakeAttempt, run_job
from tests.services.support import job


async def run_mock(
    payload: dict[str, Any], connector_context: ConnectorContext, context: FakeAttempt | None = None
) -> Any:
    async with open_connector(MockConnector, MockConnector.Settings(), connector_context) as connector:
        return await run_job(connector, job(payload), context)


async def test_mock_returns_its_test_data_after_its_delay(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    context = FakeAttempt()
    began = trio.current_time()
    result = await run_mock({"delay_ms": 2000, "test_data": {"a": [1]}}, connector_context, context)
    assert trio.current_time() - began == pytest.approx(2)
    assert result.data["test_data"] == {"a": [1]}
    assert result.data.keys() == {"test_data", "mock_url", "processing_time_ms"}
    assert [report.value for report in context.reports] == [10, 80]


@pytest.mark.parametrize("value", [True, "true", 1, "1", "True", " yes "])
async def test_mock_fails_when_asked_as_a_service_that_is_down(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock, value: Any
) -> None:
    """Another attempt is made: the fleet's own tests of retries rely on it."""
    with pytest.raises(ServiceError) as caught:
        await run_mock({"should_fail": value}, connector_context)
    failure = caught.value.failure
    assert (failure.type, failure.reason, failure.retry) == ("service_error", "service_down", True)


@pytest.mark.parametrize(
    ("payload", "seconds"),
    [
        ({"delay_ms": "250"}, 0.25),
        ({"delay_ms": " 1e3 "}, 1.0),
        ({"delay_ms": "-5"}, 0),
        ({"delay_ms": -5}, 0),
        ({"delay_ms": -1e300}, 0),
        ({"delay_ms": 0}, 0),
        ({"delay_ms": None, "should_fail": None}, 0.1),
        ({"delay_ms": "", "should_fail": ""}, 0.1),
        ({"delay_ms": 200, "should_fail": "false"}, 0.2),
        ({"delay_ms": 200, "should_fail": 0, "else": []}, 0.2),
    ],
)
async def test_mock_reads_fields_as_forms_write_them(
    payload: dict[str, Any], seconds: float, connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    result = await run_mock(payload, connector_context)
    assert trio.current_time() - began == pytest.approx(seconds)
    assert result.data["processing_time_ms"] == seconds * 1000


@pytest.mark.parametrize(
    "payload",
    [
        {"delay_ms": "soon"},
        {"delay_ms": "nan"},
        {"delay_ms": "1e999"},
        {"delay_ms": 1e12},
        {"delay_ms": True},
        {"delay_ms": [1]},
        {"should_fail": "maybe"},
        {"should_fail": 2},
        {"should_fail": {}},
    ],
)
async def test_mock_refuses_a_wrong_payload(payload: dict[str, Any], connector_context: ConnectorContext) -> None:
    with pytest.raises(InvalidJob, match=next(iter(payload))):
        await run_mock(payload, connector_context)


async def test_mock_ends_with_its_deadline(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    context = FakeAttempt(2.0, limits=StageLimits(upload=0.1, cdn=0.1, settle=0.1))
    with pytest.raises(DeadlineExceeded) as caught:
        await run_mock({"delay_ms": 60_000}, connector_context, context)
    assert caught.value.stage == "service"


async def simulate(
    payload: dict[str, Any], connector_context: ConnectorContext, context: FakeAttempt, failure_rate: float = 0
) -> Any:
    settings = SimulationConnector.Settings(
        failure_rate=failure_rate, simulation=SimulationSettings(processing_time=4.0, steps=8)
    )
    async with open_connector(SimulationConnector, settings, connector_context) as connector:
        return await run_job(connector, job(payload), context)


async def test_a_simulation_goes_through_its_steps(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    context = FakeAttempt()
    result = await simulate({"seed": 1}, connector_context, context)
    assert [report.value for report in context.reports] == [100 * step / 8 for step in range(1, 9)]
    assert result.data["steps_completed"] == 8
    assert result.data["processing_time_ms"] == 4000
    assert result.data["job_payload"] == {"seed": 1}


async def test_a_simulation_does_as_its_payload_says(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    payload = {"simulate": {"seconds": "1", "steps": "2", "fail": "no paint", "retryable": "false"}}
    with pytest.raises(ServiceError, match="no paint") as caught:
        await simulate(payload, connector_context, FakeAttempt())
    assert not caught.value.retry
    assert trio.current_time() - began == pytest.approx(1)


async def test_a_simulation_fails_by_chance_only_where_that_is_set(
    connector_context: ConnectorContext, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(50):
        assert (await simulate({}, connector_context, FakeAttempt(), failure_rate=0)).success
    with pytest.raises(ServiceError, match="by chance"):
        await simulate({}, connector_context, FakeAttempt(), failure_rate=1)


async def test_a_simulation_refuses_wrong_steering(connector_context: ConnectorContext) -> None:
    for simulate_, named in ({"steps": 0}, "steps"), ({"steps": "many"}, "steps"), ([1], "payload.simulate"):
        with pytest.raises(InvalidJob, match=named):
            await simulate({"simulate": simulate_}, connector_context, FakeAttempt())
