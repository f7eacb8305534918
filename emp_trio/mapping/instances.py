"""Compute the number of instances of a service on one machine, and the port of each. Pure.

``ports``, ``port_increment`` and ``service_instances_per_gpu`` of a service (service mapping reference 2, 4.1 and 6):
worker number ``n`` uses the base port plus ``n`` increments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.paths import service_path
from emp_trio.mapping.plans import ServicePlan
from emp_trio.mapping.schema import Service, Template
from emp_trio.mapping.substitution import substitute
from emp_trio.mapping.substitution_errors import SubstitutionError
from emp_trio.secrets import excerpt
from emp_trio.settings import setting_fields

_LAST_PORT = 65535


def instances_per_gpu(entry: Service, name: str, env: Mapping[str, str], diagnostics: Diagnostics) -> int:
    """Return the number of processes of a service per GPU; 1 if the mapping has none."""
    value = entry.service_instances_per_gpu
    return max(1, _number(value, name, "service_instances_per_gpu", env, diagnostics, default=1))


def instances(service: ServicePlan, slots: int, gpus: int, env: Mapping[str, str], diagnostics: Diagnostics) -> int:
    """Return the number of processes of a service that share the load of ``slots`` workers.

    Args:
        service: the service; its settings hold the address of the first process.
        slots: number of workers of the type.
        gpus: GPUs that the type is bound to; 0 if it is not bound, or no GPU was found: each worker then has its own
            process.

    Returns:
        the number; 1 if the mapping has no ports for the service, or the connector has no ``port`` setting.
    """
    entry, name = service.entry, service.worker_service
    if slots == 1 or not entry.ports or _port_field(service.connector) is None or not _step(service, env, diagnostics):
        return 1
    if not gpus:
        return slots
    return min(slots, gpus * instances_per_gpu(entry, name, env, diagnostics))


def on_instance(service: ServicePlan, number: int, env: Mapping[str, str], diagnostics: Diagnostics) -> ServicePlan:
    """Return the service with the port of instance ``number`` (from 0)."""
    part = _port_field(service.connector)
    holder = service.settings if part is None or part == "" else getattr(service.settings, part)
    port = holder.port + number * _step(service, env, diagnostics)
    if port > _LAST_PORT:
        path = service_path(service.worker_service, "ports")
        diagnostics.error(path, f"instance {number} would be at port {port}", f"the last port is {_LAST_PORT}")
        port = holder.port
    holder = msgspec.structs.replace(holder, port=port)
    settings = msgspec.structs.replace(service.settings, **{part: holder}) if part else holder
    return msgspec.structs.replace(service, settings=settings, instance=number)


def _port_field(connector: type[Any]) -> str | None:
    """Return the part of a connector's settings that has ``port``: "" for the settings themselves, None for no part."""
    port = next((field for field in setting_fields(connector.Settings) if field.name == "port"), None)
    return None if port is None else port.part or ""


def _step(service: ServicePlan, env: Mapping[str, str], diagnostics: Diagnostics) -> int:
    return _number(service.entry.port_increment, service.worker_service, "port_increment", env, diagnostics, default=1)


def _number(
    value: Template | None, name: str, field: str, env: Mapping[str, str], diagnostics: Diagnostics, *, default: int
) -> int:
    if value is None:
        return default
    path = service_path(name, field)
    try:
        text = substitute(str(value), env).value.strip()
    except SubstitutionError as error:
        diagnostics.error(path, str(error))
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        diagnostics.error(path, f"{excerpt(text, 40)!r} is not a whole number")
        return default
    return int(text)
