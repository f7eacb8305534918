"""From a worker string to a plan: job type -> worker type -> worker service -> connector -> settings. Pure.

A worker type's jobs are routed by its own map alone: two types that serve the same job type each use their own service
(service mapping reference 8.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping.build import Built, build_settings
from emp_trio.mapping.diagnostics import Diagnostics, TooMany
from emp_trio.mapping.environment import Need, check_required
from emp_trio.mapping.instances import instances, on_instance
from emp_trio.mapping.paths import child, service_path, worker_path
from emp_trio.mapping.plans import Plan, ServicePlan, WorkerPlan
from emp_trio.mapping.schema import Service, ServiceMapping
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.mapping.workers import WorkerCount, parse_workers, single_worker

FindConnector = Callable[[str, str | None], type[Any] | None]
"""Class name and ``connectors[name].path`` to the class; None when there is none, ConfigError when it is broken or the
name is nearly that of another one."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a worker service as could be resolved; the problems are in the diagnostics."""

    entry: Service
    path: str | None
    connector: type[Any] | None = None
    built: Built | None = None


def plan(
    mapping: ServiceMapping,
    workers: str,
    *,
    env: Mapping[str, str],
    gpus: int,
    find_connector: FindConnector,
    single: tuple[str, str] | None = None,
) -> Plan:
    """Resolve everything a machine needs before it connects anywhere.

    Args:
        mapping: the mapping.
        workers: worker string, as ``WORKERS``.
        env: the environment; nothing else is read.
        gpus: GPUs of this machine.
        find_connector: finds a connector class.
        single: worker id and ``CONNECTORS`` (may be empty) of a process that is exactly one worker; ``workers`` is
            then left aside.

    Returns:
        the plan; only services that are used by it were looked at.

    Raises:
        ConfigError: with every problem of every worker type and service in use.
    """
    diagnostics = Diagnostics()
    planned = Plan(workers=(), services={})
    try:
        if single is not None:
            counts = single_worker(*single, mapping, diagnostics)
        else:
            counts = parse_workers(workers, mapping, env=env, gpus=gpus, diagnostics=diagnostics)
        planned = _plan(mapping, counts, env, gpus, find_connector, diagnostics)
    except TooMany:
        diagnostics.problems.append(
            Problem(path="$", message="more problems than anybody reads: the rest was left out")
        )
    if diagnostics.errors:
        problems = sorted(diagnostics.problems, key=lambda problem: problem.severity)  # errors first
        raise ConfigError("the configuration can't be used", problems=problems)
    return msgspec.structs.replace(planned, warnings=tuple(diagnostics.problems))


def resolve_service(
    mapping: ServiceMapping,
    name: str,
    *,
    env: Mapping[str, str],
    find_connector: FindConnector,
    diagnostics: Diagnostics,
    needs: list[Need],
) -> Resolved:
    """Resolve one worker service of the mapping: its connector, and the connector's settings.

    Args:
        name: a name in ``mapping.services``.
        env: the environment.
        find_connector: finds a connector class.
        diagnostics: where problems are added.
        needs: where required variables are added.
    """
    entry = mapping.services[name]
    place = mapping.connectors.get(entry.connector)
    resolved = Resolved(entry=entry, path=place.path if place else None)
    where = service_path(name, "connector")
    try:
        connector = find_connector(entry.connector, resolved.path)
    except ConfigError as error:
        diagnostics.error(where, error.message)
        return resolved
    if connector is None:
        hint = did_you_mean(entry.connector, sorted(mapping.connectors))
        hint = hint or "is the package that brings it installed?"
        diagnostics.error(where, f"there is no connector {entry.connector!r}", hint)
        return resolved
    by = f"service {name}"
    needs += [Need(variable, service_path(name, "required_env"), by) for variable in entry.required_env]
    built = build_settings(
        connector, entry.api_config, service_path(name, "api_config"), env=env, diagnostics=diagnostics
    )
    needs += [Need(variable, where, connector.__name__) for variable in built.needed]
    return msgspec.structs.replace(resolved, connector=connector, built=built)


def _plan(
    mapping: ServiceMapping,
    counts: tuple[WorkerCount, ...],
    env: Mapping[str, str],
    gpus: int,
    find_connector: FindConnector,
    diagnostics: Diagnostics,
) -> Plan:
    needs: list[Need] = []
    services: dict[str, ServicePlan | None] = {}
    workers: list[WorkerPlan] = []
    for wanted in counts:
        worker = mapping.workers[wanted.name]
        by = f"worker type {wanted.name}"
        needs += [Need(v, worker_path(wanted.name, "required_env"), by) for v in worker.required_env]
        routes: dict[str, ServicePlan] = {}
        for index, route in enumerate(worker.job_service_required_map):
            name = route.worker_service
            if name not in services:
                where = child(worker_path(wanted.name, "job_service_required_map"), index)
                services[name] = _service(mapping, name, where, env, find_connector, diagnostics, needs)
            service = services[name]
            if service is not None:
                routes.setdefault(route.job_service_required, service)
        if not routes and not diagnostics.errors:
            diagnostics.error(worker_path(wanted.name, "job_service_required_map"), "leaves no job that can be run")
        whole = WorkerPlan(
            name=wanted.name,
            numbers=tuple(range(wanted.count)),
            is_gpu_bound=worker.is_gpu_bound,
            routes=routes,
            worker_id=wanted.worker_id,
        )
        lanes = _lanes(whole, gpus, env, diagnostics)
        _warn_of_limits(whole, lanes, diagnostics)
        workers += lanes
    check_required(needs, env, diagnostics)
    used = {service.key: service for worker in workers for service in worker.routes.values()}
    return Plan(workers=tuple(workers), services=used)


def _warn_of_limits(whole: WorkerPlan, lanes: list[WorkerPlan], diagnostics: Diagnostics) -> None:
    """Slots that can never work at the same time are more than anybody wants to pay leases for."""
    for service in {route.key: route for route in whole.routes.values()}.values():
        limits = getattr(service.settings, "limits", None)
        most = getattr(limits, "max_concurrent_jobs", None)
        if most is None:
            continue
        slots: Counter[str] = Counter()  # of each instance: each has the limit for itself
        for lane in lanes:
            keys = {route.key for route in lane.routes.values() if route.worker_service == service.worker_service}
            slots.update(dict.fromkeys(keys, lane.count))
        able = sum(min(most, count) for count in slots.values())
        if able < whole.count:
            path = child(service_path(service.worker_service, "api_config"), "max_concurrent_jobs")
            message = f"lets {able} of the {whole.count} slots of {whole.name} work at a time; the others wait"
            diagnostics.warning(path, message, f"ask for {whole.name}:{able}, or raise it")


def _lanes(whole: WorkerPlan, gpus: int, env: Mapping[str, str], diagnostics: Diagnostics) -> list[WorkerPlan]:
    """The lanes of a worker type: slot ``n`` uses instance ``n`` of each service that has instances, counted round."""
    slots = len(whole.numbers)
    counts = {
        service.worker_service: instances(service, slots, gpus if whole.is_gpu_bound else 0, env, diagnostics)
        for service in whole.routes.values()
    }
    lanes = max(counts.values(), default=1)
    if lanes == 1:
        return [whole]
    made: dict[str, ServicePlan] = {}
    found: list[WorkerPlan] = []
    for lane in range(lanes):
        routes: dict[str, ServicePlan] = {}
        for job_type, service in whole.routes.items():
            many = counts[service.worker_service]
            one = on_instance(service, lane % many, env, diagnostics) if many > 1 else service
            routes[job_type] = made.setdefault(one.key, one)
        numbers = tuple(number for number in whole.numbers if number % lanes == lane)
        found.append(msgspec.structs.replace(whole, numbers=numbers, routes=routes, lane=lane))
    return found


def _service(
    mapping: ServiceMapping,
    name: str,
    where: str,
    env: Mapping[str, str],
    find_connector: FindConnector,
    diagnostics: Diagnostics,
    needs: list[Need],
) -> ServicePlan | None:
    if name not in mapping.services:
        hint = did_you_mean(name, mapping.services)
        diagnostics.error(child(where, "worker_service"), f"there is no service {name!r}", hint)
        return None
    found = resolve_service(mapping, name, env=env, find_connector=find_connector, diagnostics=diagnostics, needs=needs)
    if found.connector is None or found.built is None or found.built.settings is None:
        return None
    return ServicePlan(
        worker_service=name,
        connector_name=found.entry.connector,
        connector=found.connector,
        settings=found.built.settings,
        entry=msgspec.structs.replace(found.entry, api_config={}),
        origins=found.built.origins,
        secrets=found.built.secrets,
    )
