"""Plan of a machine: worker types, services and settings, as :func:`emp_trio.mapping.resolve.plan` returns them."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.errors import Problem
from emp_trio.mapping.build import Origin
from emp_trio.mapping.schema import Service
from emp_trio.secrets import Secret
from emp_trio.secrets.credentials import secrets_in


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved worker service.

    Attributes:
        worker_service: name in the mapping.
        instance: number of the process, from 0; None if all workers use one address.
        connector_name: name of the connector in the mapping.
        connector: connector class.
        settings: instance of the connector's ``Settings``.
        entry: entry in the mapping, without ``api_config``: ``settings`` has it, with secrets hidden.
        origins: source of each setting.
        secrets: the secrets among the settings.
    """

    worker_service: str
    connector_name: str
    connector: type[Any]
    settings: Any
    entry: Service
    origins: tuple[Origin, ...] = ()
    secrets: tuple[Secret, ...] = ()
    instance: int | None = None

    @property
    def key(self) -> str:
        """Its name in a plan."""
        return self.worker_service if self.instance is None else f"{self.worker_service}#{self.instance}"


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A lane: workers (slots) of one type that use the same service instances.

    A type whose services have several instances has one lane per instance.

    Attributes:
        name: worker type.
        numbers: numbers of the slots.
        is_gpu_bound: whether each slot uses one GPU.
        routes: job type -> service, in file order.
        worker_id: id of a single worker; None for ``{machine}-worker-{name}-{n}``.
        lane: number of the lane, from 0; None if the type has only one.
    """

    name: str
    numbers: tuple[int, ...]
    is_gpu_bound: bool
    routes: dict[str, ServicePlan]
    worker_id: str | None = None
    lane: int | None = None

    @property
    def count(self) -> int:
        """Number of slots."""
        return len(self.numbers)

    @property
    def key(self) -> str:
        """Its name in a plan."""
        return self.name if self.lane is None else f"{self.name}#{self.lane}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All worker types and services of a machine.

    Attributes:
        workers: lanes, in the order of the worker string.
        services: key -> service; the same objects as in the routes.
        warnings: problems that do not prevent a start.
    """

    workers: tuple[WorkerPlan, ...]
    services: dict[str, ServicePlan]
    warnings: tuple[Problem, ...] = ()

    def slots(self) -> dict[str, int]:
        """Return the number of slots by worker type."""
        counts: dict[str, int] = {}
        for worker in self.workers:
            counts[worker.name] = counts.get(worker.name, 0) + worker.count
        return counts

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return the secrets of all connectors' settings, for the redactor."""
        every = (secret for s in self.services.values() for secret in (*s.secrets, *secrets_in(s.settings)))
        return tuple(dict.fromkeys(every))
