"""The connectors without a service, and those of the simulated services."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.protocols.websocket import WebSocketSettings
from emp_trio.services.mock import MockConnector
from emp_trio.services.simulation.http import SimulationHttpConnector
from emp_trio.services.simulation.in_process import SimulationConnector
from emp_trio.services.simulation.job import SimulationSettings
from emp_trio.services.simulation.websocket import SimulationWebsocketConnector
from emp_trio.testing.conformance import ConnectorConformance
from emp_trio.testing.sim_http import SimulatedHttpService, open_simulated_http
from emp_trio.testing.sim_websocket import SimulatedWebsocketService, open_simulated_websocket

LONG = {"simulate": {"seconds": 3600}}


class TestMock(ConnectorConformance):
    connector = MockConnector
    payload: ClassVar = {"delay_ms": 5, "test_data": "data"}

    def long_job(self, service: None) -> Job:
        return self.job(payload={"delay_ms": 3_600_000})

    def check(self, result: JobResult) -> None:
        assert result.data["test_data"] == "data"


class TestSimulation(ConnectorConformance):
    connector = SimulationConnector
    payload: ClassVar = {"simulate": {"seconds": 0.01, "steps": 4}}

    def long_job(self, service: None) -> Job:
        return self.job(payload=LONG)

    def check(self, result: JobResult) -> None:
        assert result.data["steps_completed"] == 4


class TestSimulationHttp(ConnectorConformance):
    connector = SimulationHttpConnector
    payload: ClassVar = {"simulate": {"seconds": 0.01, "steps": 4}, "save_assets": True}

    def open_service(self) -> AbstractAsyncContextManager[SimulatedHttpService]:
        return open_simulated_http()

    def settings(self, service: SimulatedHttpService, url: str) -> Any:
        return SimulationHttpConnector.Settings(
            http=HttpSettings(base_url=url, retry_delay=0.005, max_connections=2),
            polling=PollingSettings(interval=0.002, attempts=400),
        )

    def long_job(self, service: SimulatedHttpService) -> Job:
        return self.job(payload=LONG)

    def begun(self, service: SimulatedHttpService) -> int:
        return len(service.jobs)

    def running(self, service: SimulatedHttpService) -> int:
        return service.states().count("running")

    def odd(self, answer: Any) -> Iterable[Any]:
        for name, entry in answer.items() if isinstance(answer, dict) else ():
            if isinstance(entry, dict) and "outputs" in entry:
                lost = {"filename": "lost.png", "type": "output"}
                yield {name: entry | {"outputs": {"images": [lost, *entry["outputs"]["images"]]}}}
                yield {name: entry | {"execution_time": None, "error": "Too late."}}
                for word in ("Completed", "succeeded", "error", "cancelled", "a new word", None):
                    yield {name: entry | {"status": word, "error": "Too late."}}

    def check(self, result: JobResult) -> None:
        assert result.data["simulation_id"].startswith("sim-")
        assert result.data["results"]["iterations"] == 4
        assert [file.mime_type for file in result.output_files] == ["image/png"]


class TestSimulationWebsocket(ConnectorConformance):
    connector = SimulationWebsocketConnector
    payload: ClassVar = {"simulate": {"seconds": 0.01, "steps": 4}, "save_assets": True}
    answer_timeout = 0.2

    def open_service(self) -> AbstractAsyncContextManager[SimulatedWebsocketService]:
        return open_simulated_websocket()

    def settings(self, service: SimulatedWebsocketService, url: str) -> Any:
        return SimulationWebsocketConnector.Settings(
            websocket=WebSocketSettings(url=url, handshake_timeout=self.answer_timeout),
            simulation=SimulationSettings(progress_interval_ms=5),
            reconnect_delay=0.01,
            reconnect_cap=0.05,
        )

    def long_job(self, service: SimulatedWebsocketService) -> Job:
        return self.job(payload=LONG)

    def begun(self, service: SimulatedWebsocketService) -> int:
        return len(service.jobs)

    def running(self, service: SimulatedWebsocketService) -> int:
        return service.states().count("running")

    def check(self, result: JobResult) -> None:
        assert result.data["simulation_id"].startswith("wsim-")
        assert [file.mime_type for file in result.output_files] == ["image/png"]
