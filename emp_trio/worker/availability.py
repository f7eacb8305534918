"""Available capabilities and services per lane, from the health of the connectors."""

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
    """Capabilities by lane (:class:`~emp_trio.mapping.plans.WorkerPlan`), cached until the health of a service changes.

    Args:
        workers: lanes of the machine.
        supervisors: supervisors by worker service.
        environment: environment with further capabilities.
        hardware: hardware of the machine.
        context: dependencies of the machine.
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
        """Discard cached capabilities, because a service became usable or unusable."""
        self._known.clear()
        self._arguments.clear()

    def capabilities(self, lane: str) -> Mapping[str, Any]:
        """Return the capabilities of a lane: only job types whose connector is usable (service mapping reference 8.2).

        Models are listed under the connector's service type, as the fleet's workers do, and under the job types, where
        the fleet's matching looks for them (queue protocol 3.4, rule 7).
        """
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
        """Return the encoded capabilities for a claim, without the slot's id, or None if no service is usable."""
        if lane not in self._arguments:
            found = self.capabilities(lane)
            encoded = _encode({k: v for k, v in found.items() if v != WORKER_ID_MARK})
            self._arguments[lane] = encoded if found["services"] else None
        return self._arguments[lane]

    def supervisor(self, lane: str, job_type: str) -> Supervisor | None:
        """Return the supervisor of the service that runs jobs of a type, usable or not; None if the lane has none."""
        service = self._workers[lane].routes.get(job_type)
        return None if service is None else self._supervisors[service.key]

    def statuses(self) -> list[dict[str, Any]]:
        """Return the fleet's status of each connector. Of several instances, a usable one comes last."""
        found = [supervisor.status() for supervisor in self._supervisors.values()]
        return sorted(found, key=lambda status: status["status"] == "active")

    @property
    def gpus(self) -> int:
        """Return the number of GPUs of the machine."""
        return self._hardware.gpus

    def services(self, lane: str) -> list[ServiceStatus]:
        """Return the services of a lane, usable or not."""
        names = dict.fromkeys(service.key for service in self._workers[lane].routes.values())
        used = [self._supervisors[name] for name in names]
        return [ServiceStatus(s.plan.worker_service, s.plan.connector_name, s.usable) for s in used]
