"""Capabilities and services that a machine can offer now, per lane, from the health of its connectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from emp_trio.mapping import WorkerPlan
from emp_trio.worker.capabilities import WORKER_ID_MARK, Hardware, capabilities
from emp_trio.worker.connectors import Supervisor
from emp_trio.worker.context import MachineContext
from emp_trio.worker.fleet_events import ServiceStatus

_encode: Final = msgspec.json.Encoder().encode


class Availability:
    """Capabilities by lane (:class:`~emp_trio.mapping.plans.WorkerPlan`); made once per change of a service's health.

    Args:
        workers: the worker types.
        supervisors: connectors by worker service.
        environment: for capabilities that are set there.
        hardware: of the machine.
        context: of the machine.
    """

    def __init__(
        self,
        workers: Sequence[WorkerPlan],
        supervisors: Mapping[str, Supervisor],
        environment: Mapping[str, str],
        hardware: Hardware,
        context: MachineContext,
    ) -> None:
        self._workers = {worker.key: worker for worker in workers}
        self._supervisors = supervisors
        self._environment = environment
        self._hardware = hardware
        self._machine_id = context.settings.machine_id
        self._known: dict[str, Mapping[str, Any]] = {}
        self._arguments: dict[str, bytes | None] = {}

    def changed(self) -> None:
        """A service became usable or stopped being so."""
        self._known.clear()
        self._arguments.clear()

    def capabilities(self, lane: str) -> Mapping[str, Any]:
        """Only job types whose connector can be used now are offered (service mapping reference 8.2). Models stand
        under the connector's service type, as the fleet's workers have them, and under the job types, by which the
        fleet's matching looks for them (queue protocol 3.4, rule 7)."""
        if lane not in self._known:
            routes = self._workers[lane].routes
            usable = {name: self._supervisors[service.key] for name, service in routes.items()}
            usable = {name: supervisor for name, supervisor in usable.items() if supervisor.usable}
            models: dict[str, list[str]] = {}
            for name, supervisor in usable.items():
                for key in (name, supervisor.plan.connector.service_type):
                    models[key] = list(dict.fromkeys([*models.get(key, []), *supervisor.models]))
            self._known[lane] = capabilities(
                self._environment, self._hardware, machine_id=self._machine_id, services=list(usable), models=models
            )
        return self._known[lane]

    def claim_argument(self, lane: str) -> bytes | None:
        """The capabilities as a claim takes them, without the slot's id; None while no service can be used."""
        if lane not in self._arguments:
            found = self.capabilities(lane)
            encoded = _encode({k: v for k, v in found.items() if v != WORKER_ID_MARK})
            self._arguments[lane] = encoded if found["services"] else None
        return self._arguments[lane]

    def supervisor(self, lane: str, job_type: str) -> Supervisor | None:
        """The service that runs jobs of a type in a lane, usable or not; None where the type is not served there."""
        service = self._workers[lane].routes.get(job_type)
        return None if service is None else self._supervisors[service.key]

    def statuses(self) -> list[dict[str, Any]]:
        """The fleet's status word for each connector; of several instances the usable one comes last."""
        found = [supervisor.status() for supervisor in self._supervisors.values()]
        return sorted(found, key=lambda status: status["status"] == "active")

    @property
    def gpus(self) -> int:
        """How many the machine has."""
        return self._hardware.gpus

    def services(self, lane: str) -> list[ServiceStatus]:
        """Every service of a lane, usable or not."""
        names = dict.fromkeys(service.key for service in self._workers[lane].routes.values())
        used = [self._supervisors[name] for name in names]
        return [ServiceStatus(s.plan.worker_service, s.plan.connector_name, s.usable) for s in used]
