"""Explain how a job type is resolved, and the source of each setting: :func:`explain`. Pure.

It uses the resolver of :func:`emp_trio.mapping.resolve.plan`, so it shows what the worker does.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping.build import Origin
from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.environment import Need, check_required
from emp_trio.mapping.paths import child, worker_path
from emp_trio.mapping.resolve import FindConnector, resolve_service
from emp_trio.mapping.schema import ServiceMapping, WorkerType
from emp_trio.mapping.suggestions import did_you_mean


class Required(msgspec.Struct, frozen=True, kw_only=True):
    """A required variable, who needs it, and whether it is set and not blank."""

    variable: str
    by: str
    is_set: bool


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The way one worker type runs jobs of a type.

    Attributes:
        worker_type: name of the worker type; ``path`` is the JSON path of its route.
        worker_service, service_type: the service and its type.
        connector, connector_path: name of the connector, and its path in the mapping.
        connector_class: ``package.module:Class``, or None if the connector does not exist.
        settings: source of each setting, secrets masked.
        required: required variables of worker type, service and connector.
        problems: errors and warnings; without errors, jobs can run.
    """

    worker_type: str
    path: str
    worker_service: str
    service_type: str | None = None
    connector: str | None = None
    connector_path: str | None = None
    connector_class: str | None = None
    settings: tuple[Origin, ...] = ()
    required: tuple[Required, ...] = ()
    problems: tuple[Problem, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Result of :func:`explain`: one chain per worker type that takes the job type, in file order."""

    job_type: str
    chains: tuple[Chain, ...]


def explain(
    mapping: ServiceMapping, job_type: str, *, env: Mapping[str, str], find_connector: FindConnector
) -> Explanation:
    """Resolve a job type for every worker type that takes it.

    Args:
        mapping: the mapping.
        job_type: ``service_required`` of a job.
        env: the environment.
        find_connector: as for :func:`~emp_trio.mapping.resolve.plan`.

    Raises:
        ConfigError: no worker type takes this job type.
    """
    chains = [
        _chain(mapping, name, worker, index, env, find_connector)
        for name, worker in mapping.workers.items()
        if (index := _index(worker, job_type)) is not None
    ]
    if not chains:
        job_types = {r.job_service_required: None for w in mapping.workers.values() for r in w.job_service_required_map}
        hint = did_you_mean(job_type, job_types) or "job types: " + ", ".join(job_types)
        problem = Problem(path="$.workers", message=f"no worker type takes jobs of type {job_type!r}", hint=hint)
        raise ConfigError("there is nothing to explain", problems=[problem])
    return Explanation(job_type=job_type, chains=tuple(chains))


def _index(worker: WorkerType, job_type: str) -> int | None:
    routes = enumerate(worker.job_service_required_map)
    return next((i for i, route in routes if route.job_service_required == job_type), None)


def _chain(
    mapping: ServiceMapping,
    worker_name: str,
    worker: WorkerType,
    index: int,
    env: Mapping[str, str],
    find_connector: FindConnector,
) -> Chain:
    service = worker.job_service_required_map[index].worker_service
    path = child(worker_path(worker_name, "job_service_required_map"), index)
    diagnostics = Diagnostics()
    by = f"worker type {worker_name}"
    needs = [Need(variable, worker_path(worker_name, "required_env"), by) for variable in worker.required_env]
    chain = Chain(worker_type=worker_name, path=path, worker_service=service)
    if service not in mapping.services:
        hint = did_you_mean(service, mapping.services)
        diagnostics.error(child(path, "worker_service"), f"there is no service {service!r}", hint)
    else:
        resolved = resolve_service(
            mapping, service, env=env, find_connector=find_connector, diagnostics=diagnostics, needs=needs
        )
        cls = resolved.connector
        chain = msgspec.structs.replace(
            chain,
            service_type=resolved.entry.type,
            connector=resolved.entry.connector,
            connector_path=resolved.path,
            connector_class=f"{cls.__module__}:{cls.__qualname__}" if cls is not None else None,
            settings=resolved.built.origins if resolved.built is not None else (),
        )
    check_required(needs, env, diagnostics)
    required = [Required(variable=n.variable, by=n.by, is_set=bool(env.get(n.variable, "").strip())) for n in needs]
    return msgspec.structs.replace(chain, required=tuple(required), problems=tuple(diagnostics.problems))
