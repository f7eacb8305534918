"""Resolve a worker string to a plan: job type -> worker type -> worker service -> connector -> settings. Pure.

Each worker type routes jobs by its own map: two types that serve the same job type each use their own service
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
"""Returns the class for a class name and ``connectors[name].path``, or None if there is none. Raises ConfigError if the
class can't be imported, or if the name is a likely misspelling of another."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The resolved part of a worker service; problems are in the diagnostics."""

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
    """Resolve all worker types, services and settings of a machine.

    Args:
        mapping: the mapping.
        workers: worker string, as in ``WORKERS``.
        env: the environment.
        gpus: number of GPUs of this machine.
        find_connector: returns a connector class by name.
        single: worker id and ``CONNECTORS`` (may be empty) of a process that is exactly one worker; ``workers`` is
            then ignored.

    Returns:
        the plan. Services that no worker uses are not checked.

    Raises:
        ConfigError: a worker type or service in use has an error; ``problems`` lists all errors and warnings.
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
        diagnostics.problems.append(Problem(path="$", message="too many problems: the rest was not looked at"))
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
    """Resolve the connector and the settings of one worker service.

    Args:
        name: name in ``mapping.services``.
        env: the environment.
        find_connector: returns a connector class by name.
        diagnostics: receives the problems.
        needs: receives the required variables.
    """
    entry = mapping.services[name]
    place = mapping.connectors.get(entry.connector)
    resolved = Resolved(entry=entry, path=place.path if place else None)
    path = service_path(name, "connector")
    try:
        connector = find_connector(entry.connector, resolved.path)
    except ConfigError as error:
        diagnostics.error(path, error.message)
        return resolved
    if connector is None:
        hint = did_you_mean(entry.connector, sorted(mapping.connectors))
        hint = hint or "is the package that brings it installed?"
        diagnostics.error(path, f"there is no connector {entry.connector!r}", hint)
        return resolved
    by = f"service {name}"
    needs += [Need(variable, service_path(name, "required_env"), by) for variable in entry.required_env]
    built = build_settings(
        connector, entry.api_config, service_path(name, "api_config"), env=env, diagnostics=diagnostics
    )
    needs += [Need(variable, path, connector.__name__) for variable in built.needed]
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
    for requested in counts:
        worker = mapping.workers[requested.name]
        by = f"worker type {requested.name}"
        needs += [Need(v, worker_path(requested.name, "required_env"), by) for v in worker.required_env]
        routes: dict[str, ServicePlan] = {}
        for index, route in enumerate(worker.job_service_required_map):
            name = route.worker_service
            if name not in services:
                path = child(worker_path(requested.name, "job_service_required_map"), index)
                services[name] = _service(mapping, name, path, env, find_connector, diagnostics, needs)
            service = services[name]
            if service is not None:
                routes.setdefault(route.job_service_required, service)
        if not routes and not diagnostics.errors:
            diagnostics.error(worker_path(requested.name, "job_service_required_map"), "leaves no job that can be run")
        whole = WorkerPlan(
            name=requested.name,
            numbers=tuple(range(requested.count)),
            is_gpu_bound=worker.is_gpu_bound,
            routes=routes,
            worker_id=requested.worker_id,
        )
        lanes = _lanes(whole, gpus, env, diagnostics)
        _warn_of_limits(whole, lanes, diagnostics)
        workers += lanes
    check_required(needs, env, diagnostics)
    used = {service.key: service for worker in workers for service in worker.routes.values()}
    return Plan(workers=tuple(workers), services=used)


def _warn_of_limits(whole: WorkerPlan, lanes: list[WorkerPlan], diagnostics: Diagnostics) -> None:
    """Warn about slots that can never work at the same time, because a service limits concurrent jobs."""
    for service in {route.key: route for route in whole.routes.values()}.values():
        limits = getattr(service.settings, "limits", None)
        most = getattr(limits, "max_concurrent_jobs", None)
        if most is None:
            continue
        slots: Counter[str] = Counter()  # by instance: the limit applies to each
        for lane in lanes:
            keys = {route.key for route in lane.routes.values() if route.worker_service == service.worker_service}
            slots.update(dict.fromkeys(keys, lane.count))
        able = sum(min(most, count) for count in slots.values())
        if able < whole.count:
            path = child(service_path(service.worker_service, "api_config"), "max_concurrent_jobs")
            message = f"lets {able} of the {whole.count} slots of {whole.name} work at a time; the others wait"
            diagnostics.warning(path, message, f"ask for {whole.name}:{able}, or raise it")


def _lanes(whole: WorkerPlan, gpus: int, env: Mapping[str, str], diagnostics: Diagnostics) -> list[WorkerPlan]:
    """Return the lanes of a worker type: slot ``n`` uses instance ``n`` modulo the number of instances."""
    slots = len(whole.numbers)
    counts = {
        service.worker_service: instances(service, slots, gpus if whole.is_gpu_bound else 0, env, diagnostics)
        for service in whole.routes.values()
    }
    lane_count = max(counts.values(), default=1)
    if lane_count == 1:
        return [whole]
    made: dict[str, ServicePlan] = {}
    lanes: list[WorkerPlan] = []
    for lane in range(lane_count):
        routes: dict[str, ServicePlan] = {}
        for job_type, service in whole.routes.items():
            many = counts[service.worker_service]
            instance = on_instance(service, lane % many, env, diagnostics) if many > 1 else service
            routes[job_type] = made.setdefault(instance.key, instance)
        numbers = tuple(number for number in whole.numbers if number % lane_count == lane)
        lanes.append(msgspec.structs.replace(whole, numbers=numbers, routes=routes, lane=lane))
    return lanes


def _service(
    mapping: ServiceMapping,
    name: str,
    path: str,
    env: Mapping[str, str],
    find_connector: FindConnector,
    diagnostics: Diagnostics,
    needs: list[Need],
) -> ServicePlan | None:
    if name not in mapping.services:
        hint = did_you_mean(name, mapping.services)
        diagnostics.error(child(path, "worker_service"), f"there is no service {name!r}", hint)
        return None
    resolved = resolve_service(
        mapping, name, env=env, find_connector=find_connector, diagnostics=diagnostics, needs=needs
    )
    if resolved.connector is None or resolved.built is None or resolved.built.settings is None:
        return None
    return ServicePlan(
        worker_service=name,
        connector_name=resolved.entry.connector,
        connector=resolved.connector,
        settings=resolved.built.settings,
        entry=msgspec.structs.replace(resolved.entry, api_config={}),
        origins=resolved.built.origins,
        secrets=resolved.built.secrets,
    )
