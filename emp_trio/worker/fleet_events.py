"""Build the fleet's messages about a machine's slots, as (channel, message) pairs. Pure.

Shapes: queue protocol 2 (worker_status), 2.7 (registration), 2.8 (aggregator), 2.9 (machine status).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from emp_trio.queue.messages import iso
from emp_trio.worker.build import Build

_encode: Final = msgspec.json.Encoder().encode

Messages = list[tuple[str, bytes]]


class SlotState(msgspec.Struct, kw_only=True):
    """State and statistics of a slot."""

    worker_id: str
    worker_type: str
    lane: str  # key of its worker type's plan (WorkerPlan.key)
    completed: int = 0
    failed: int = 0
    current_job_id: str | None = None
    current_service: str | None = None


class ServiceStatus(msgspec.Struct, frozen=True):
    """A worker service of a worker type, its connector, and whether it is usable."""

    service: str
    connector: str
    usable: bool


def arriving(
    worker: str,
    machine: str,
    capabilities: Mapping[str, Any],
    build: Build,
    *,
    connected_at: str,
    now: float,
    unified: bool,
) -> Messages:
    """Return the messages for a slot that joins the fleet.

    Args:
        capabilities: capabilities of its worker type; the id in them is ignored.
        connected_at: ISO time.
        now: seconds since the epoch.
        unified: whether an aggregator reports the machine: then only the aggregator gets messages.
    """
    ms = int(now * 1000)
    told = _to_aggregator(worker, machine, "idle", ms, build, capabilities=capabilities["services"])
    if unified:
        return [told]
    hardware = capabilities["hardware"]
    data = {
        "id": worker,
        "status": "idle",
        "capabilities": {
            "gpu_count": 1,
            "gpu_memory_gb": hardware["gpu_memory_gb"],
            "gpu_model": hardware["gpu_model"],
            "cpu_cores": 1,
            "ram_gb": hardware["ram_gb"],
            "services": capabilities["services"],
            "models": list(capabilities["models"]),
            "customer_access": capabilities["customer_access"]["isolation"],
            "max_concurrent_jobs": 1,
        },
        "connected_at": connected_at,
        "jobs_completed": 0,
        "jobs_failed": 0,
    }
    both = {"worker_id": worker, "machine_id": machine}
    public = ("services", "hardware", "performance", "customer_access", "models")
    status = both | {
        "status": "idle",
        "capabilities": {name: capabilities[name] for name in public},
        "timestamp": iso(now),
        "last_heartbeat": ms,
        "connected_at": connected_at,
    }
    connected = both | {"type": "worker_connected", "worker_data": data, "timestamp": ms}
    return [("worker:events", _encode(connected)), (f"worker_status:{worker}", _encode(status)), told]


def freed(worker: str, machine: str, build: Build, untold: str | None = None, *, now: float) -> Messages:
    """Return the messages for a slot that is idle without a settlement: its job was cancelled or went to another slot.

    Args:
        untold: id of the job if the slot was never published as busy with it.
    """
    ms = int(now * 1000)
    idle = {"worker_id": worker, "old_status": "busy", "new_status": "idle", "current_job_id": "", "timestamp": ms}
    said = [("worker_status", _encode(idle)), _to_aggregator(worker, machine, "idle", ms, build)]
    if untold is None:
        return said
    busy = idle | {"old_status": "idle", "new_status": "busy", "current_job_id": untold}
    told = _to_aggregator(worker, machine, "busy", ms, build, current_job_id=untold)
    return [("worker_status", _encode(busy)), told, *said]


def service_changed(worker: str, machine: str, service: ServiceStatus, *, now: float) -> tuple[str, bytes]:
    """Return the aggregator's message for a service that became usable or unusable."""
    status, health = ("active", "healthy") if service.usable else ("error", "unhealthy")
    data = {"service_type": service.service, "status": status, "health": health}
    return _event(worker, machine, "connector_status_changed", int(now * 1000), data)


def leaving(worker: str, machine: str, build: Build, reason: str, *, now: float, unified: bool) -> Messages:
    """Return the messages for a slot that leaves (queue protocol 4.9)."""
    ms = int(now * 1000)
    both = {"worker_id": worker, "machine_id": machine, "timestamp": ms}
    messages = [
        ("machine:startup:events", _encode(both | {"event_type": "shutdown", "reason": reason})),
        _to_aggregator(worker, machine, "offline", ms, build, is_connected=False),
    ]
    if unified:
        return messages
    offline = both | {"status": "offline", "timestamp": iso(now), "last_heartbeat": ms}
    disconnected = both | {"type": "worker_disconnected"}
    return [*messages, ("worker:events", _encode(disconnected)), (f"worker_status:{worker}", _encode(offline))]


def machine_status(
    machine: str,
    slots: Iterable[SlotState],
    lanes: Mapping[str, Sequence[ServiceStatus]],
    build: Build,
    *,
    update: Literal["initial", "periodic", "event_driven"],
    leaving: bool = False,
    gpus: int,
    uptime: float,
    now: float,
) -> tuple[str, bytes]:
    """Return the machine status that an aggregator would send; monitors show workers from it.

    Args:
        lanes: services by lane.
        update: the API tells its monitors at once of an ``event_driven`` one.
        leaving: whether the machine stops; said as ``event_driven``, since of the fleet's ``shutdown`` monitors are
            not told.
        uptime: seconds.
    """
    ms, here = int(now * 1000), not leaving
    workers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    states: dict[str, Any] = {}
    for slot in slots:
        found = lanes[slot.lane]
        workers[slot.worker_id] = {
            "worker_id": slot.worker_id,
            "pm2_name": slot.worker_id,
            "gpu_id": 0,
            "worker_type": slot.worker_type,
            "resource_binding": "shared",
            "services": [service.service for service in found],
            "connectors": sorted({service.connector for service in found}),
        }
        states[slot.worker_id] = {
            "is_connected": here,
            "status": "offline" if not here else "busy" if slot.current_job_id is not None else "idle",
            "current_job_id": slot.current_job_id,
            "last_activity": ms,
            **msgspec.structs.asdict(build),
        }
        for service in found:
            services[f"{slot.worker_id}.{service.service}"] = {
                "worker_id": slot.worker_id,
                "service_type": service.service,
                "pm2_name": slot.worker_id,
                "status": "active" if slot.current_service == service.service else "inactive",
                "health": "healthy" if service.usable else "unhealthy",
                "pm2_status": "online" if here else "stopped",
            }
    message = {
        "machine_id": machine,
        "timestamp": ms,
        "update_type": update,
        "structure": {"gpu_count": gpus, "capabilities": sorted(lanes), "workers": workers, "services": services},
        "status": {
            "machine": {"phase": "ready" if here else "shutdown", "uptime_ms": int(uptime * 1000)},
            "workers": states,
            "services": services,
        },
        "health_url": "",
    }
    return f"machine:status:{machine}", _encode(message)


def _to_aggregator(
    worker: str, machine: str, status: str, ms: int, build: Build, *, is_connected: bool = True, **more: Any
) -> tuple[str, bytes]:
    """Return a complete status message, because an aggregator keeps only the last one."""
    data = {
        "status": status,
        "is_connected": is_connected,
        "current_job_id": None,
        "last_activity": ms,
        **msgspec.structs.asdict(build),
        **more,
    }
    return _event(worker, machine, "worker_status_changed", ms, data)


def _event(worker: str, machine: str, kind: str, ms: int, data: Mapping[str, Any]) -> tuple[str, bytes]:
    body = {"worker_id": worker, "event_type": kind, "timestamp": ms, "data": data}
    return f"machine:{machine}:worker:{worker}", _encode(body)
