"""What a machine is to run, ready to be opened: the outcome of :func:`emp_trio.mapping.resolve.plan`."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.errors import Problem
from emp_trio.mapping.build import Origin
from emp_trio.mapping.schema import Service
from emp_trio.secrets import Secret
from emp_trio.secrets.credentials import secrets_in


class ServicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A worker service ready to be opened.

    Attributes:
        worker_service: its name in the mapping.
        instance: which of its processes this is about, from 0; None where one address serves all.
        connector_name: the connector's name in the mapping.
        connector: the class.
        settings: an instance of its ``Settings``.
        entry: the mapping's entry, without its ``api_config``: that is in the settings, where secrets are hidden.
        origins: where each setting came from.
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
    """A lane: workers (slots) of one type that use the same services. A type whose services have several instances
    has a lane for each of them.

    Attributes:
        name: the worker type.
        numbers: the numbers of its slots.
        is_gpu_bound: whether each stands for one GPU.
        routes: job type -> service, in the order of the file.
        worker_id: the exact id of a single worker; None for ``{machine}-worker-{name}-{n}``.
        lane: which of the type's lanes this is, from 0; None where it has only one.
    """

    name: str
    numbers: tuple[int, ...]
    is_gpu_bound: bool
    routes: dict[str, ServicePlan]
    worker_id: str | None = None
    lane: int | None = None

    @property
    def count(self) -> int:
        """How many slots it has."""
        return len(self.numbers)

    @property
    def key(self) -> str:
        """Its name in a plan."""
        return self.name if self.lane is None else f"{self.name}#{self.lane}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine runs.

    Attributes:
        workers: in the order of the worker string.
        services: key -> plan; the very objects that the routes point to.
        warnings: what is worth a word.
    """

    workers: tuple[WorkerPlan, ...]
    services: dict[str, ServicePlan]
    warnings: tuple[Problem, ...] = ()

    def slots(self) -> dict[str, int]:
        """Slots by worker type."""
        counts: dict[str, int] = {}
        for worker in self.workers:
            counts[worker.name] = counts.get(worker.name, 0) + worker.count
        return counts

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret of every connector's settings, for the redactor of logs and errors."""
        every = (secret for s in self.services.values() for secret in (*s.secrets, *secrets_in(s.settings)))
        return tuple(dict.fromkeys(every))
