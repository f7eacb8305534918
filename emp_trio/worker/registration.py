"""The slots as the fleet sees them: registered, kept alive, and taken out of the lists at the end.

Messages: queue protocol 2.6 (b), 2.7, 2.8, 2.9; hash and heartbeat: 1.5, 4.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
import trio

from emp_trio import __version__
from emp_trio.errors import EmpTrioError
from emp_trio.queue.messages import iso
from emp_trio.queue.verbs import Verbs
from emp_trio.worker.capabilities import WORKER_ID_MARK
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.signals import Signal

log = structlog.get_logger("emp_trio.registration")

_encode: Final = msgspec.json.Encoder().encode
_BATCH: Final = 100  # slots in one call, so that Redis is never kept busy for long


class SlotState(msgspec.Struct, kw_only=True):
    """One slot and what it has done."""

    worker_id: str
    worker_type: str
    completed: int = 0
    failed: int = 0
    current_job_id: str | None = None


class Registration:
    """Writes the slots' registration and heartbeat, all fields each time (queue protocol 1.5).

    Args:
        slots: every slot of the machine.
        capabilities: worker type -> capabilities as of now (:func:`emp_trio.worker.capabilities.capabilities`).
        statuses: connector name -> status (:meth:`emp_trio.worker.connectors.Supervisor.status`).
    """

    def __init__(
        self,
        verbs: Verbs,
        settings: WorkerSettings,
        slots: list[SlotState],
        *,
        capabilities: Callable[[str], Mapping[str, Any]],
        statuses: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._verbs = verbs
        self._settings = settings
        self._slots = slots
        self._capabilities = capabilities
        self._statuses = statuses
        self._connected_at = iso(time.time())
        self._began = time.monotonic()
        self._now = Signal()
        self._fresh = True

    def again(self) -> None:
        """Something that is registered changed (or Redis may have forgotten): write it now."""
        self._now.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Register, then beat every ``beat_every`` seconds until cancelled. Reports ready when registered."""
        reported = False
        while True:
            try:
                await self._beat()
            except EmpTrioError as error:
                log.warning("beat.failed", error=error.message)
            else:
                self._fresh = False
                if not reported:
                    reported = True
                    task_status.started()
            await self._now.wait(self._settings.beat_every if reported else 0.25)

    async def leave(self, reason: str) -> None:
        """Take the slots out of the fleet's lists (queue protocol 4.9)."""
        machine, now = self._settings.machine_id, time.time()
        for start in range(0, len(self._slots), _BATCH):
            batch = self._slots[start : start + _BATCH]
            messages = [m for slot in batch for m in self._leaving(slot.worker_id, machine, reason, now)]
            if not self._settings.unified and start + _BATCH >= len(self._slots):
                messages.append((f"machine:status:{machine}", _encode(self._machine_status("shutdown", now))))
            await self._verbs.leave([slot.worker_id for slot in batch], messages)

    async def _beat(self) -> None:
        types = sorted({slot.worker_type for slot in self._slots})
        capabilities = {name: self._capabilities(name) for name in types}
        encoded = _encode({name: _encode(c).decode() for name, c in capabilities.items()})
        statuses = _encode(self._connector_statuses())
        fresh, machine, now = self._fresh, self._settings.machine_id, time.time()
        for start in range(0, len(self._slots), _BATCH):
            batch = self._slots[start : start + _BATCH]
            messages = [m for s in batch for m in self._arriving(s, capabilities[s.worker_type], now)] if fresh else []
            if start == 0 and not self._settings.unified:
                update = "initial" if fresh else "periodic"
                messages.append((f"machine:status:{machine}", _encode(self._machine_status(update, now))))
            left = await self._verbs.beat(
                machine,
                connected_at=self._connected_at,
                fresh=fresh,
                statuses=statuses,
                capabilities=encoded,
                slots=_encode([[s.worker_id, s.worker_type, s.completed, s.failed] for s in batch]),
                messages=messages,
            )
            for job_id in left:
                log.warning("job.left_behind", job=job_id, hint="a worker of the same id ran it; it is watched now")

    def _arriving(self, slot: SlotState, capabilities: Mapping[str, Any], now: float) -> list[tuple[str, bytes]]:
        machine, worker = self._settings.machine_id, slot.worker_id
        ms, mine = int(now * 1000), dict(capabilities) | {"worker_id": worker}
        event = {
            "worker_id": worker,
            "event_type": "worker_status_changed",
            "timestamp": ms,
            "data": {
                "status": "idle",
                "is_connected": True,
                "current_job_id": None,
                "last_activity": ms,
                "version": __version__,
                "capabilities": mine["services"],
            },
        }
        messages = [(f"machine:{machine}:worker:{worker}", _encode(event))]
        if self._settings.unified:
            return messages
        hardware = mine["hardware"]
        data = {
            "id": worker,
            "status": "idle",
            "capabilities": {
                "gpu_count": 1,
                "gpu_memory_gb": hardware["gpu_memory_gb"],
                "gpu_model": hardware["gpu_model"],
                "cpu_cores": 1,
                "ram_gb": hardware["ram_gb"],
                "services": mine["services"],
                "models": list(mine["models"]),
                "customer_access": mine["customer_access"]["isolation"],
                "max_concurrent_jobs": 1,
            },
            "connected_at": self._connected_at,
            "jobs_completed": 0,
            "jobs_failed": 0,
        }
        connected = {
            "type": "worker_connected",
            "worker_id": worker,
            "machine_id": machine,
            "worker_data": data,
            "timestamp": ms,
        }
        public = ("services", "hardware", "performance", "customer_access", "models")
        status = {
            "worker_id": worker,
            "machine_id": machine,
            "status": "idle",
            "capabilities": {name: mine[name] for name in public},
            "timestamp": iso(now),
            "last_heartbeat": ms,
            "connected_at": self._connected_at,
        }
        return [("worker:events", _encode(connected)), (f"worker_status:{worker}", _encode(status)), *messages]

    def _leaving(self, worker: str, machine: str, reason: str, now: float) -> list[tuple[str, bytes]]:
        ms = int(now * 1000)
        base = {"worker_id": worker, "machine_id": machine, "timestamp": ms}
        event = {
            "worker_id": worker,
            "event_type": "worker_status_changed",
            "timestamp": ms,
            "data": {"status": "offline", "is_connected": False, "current_job_id": None, "last_activity": ms},
        }
        messages: list[tuple[str, bytes]] = [
            ("machine:startup:events", _encode(base | {"event_type": "shutdown", "reason": reason})),
            (f"machine:{machine}:worker:{worker}", _encode(event)),
        ]
        if not self._settings.unified:
            offline = base | {"status": "offline", "timestamp": iso(now), "last_heartbeat": ms}
            messages.append(("worker:events", _encode(base | {"type": "worker_disconnected"})))
            messages.append((f"worker_status:{worker}", _encode(offline)))
        return messages

    def _connector_statuses(self) -> dict[str, Any]:
        at = iso(time.time())
        return {status["connector_id"]: status | {"health_check_at": at} for status in self._statuses()}

    def _machine_status(self, update: str, now: float) -> dict[str, Any]:
        """The status that an aggregator would send (queue protocol 2.9): the way workers appear in the monitor."""
        ms, workers, states, services = int(now * 1000), {}, {}, {}
        health = {status["connector_id"]: status["status"] for status in self._statuses()}
        connectors = sorted(health)
        for slot in self._slots:
            offered = list(self._capabilities(slot.worker_type)["services"])
            workers[slot.worker_id] = {
                "worker_id": slot.worker_id,
                "pm2_name": slot.worker_id,
                "gpu_id": 0,
                "worker_type": slot.worker_type,
                "resource_binding": "shared",
                "services": offered,
                "connectors": connectors,
            }
            busy = slot.current_job_id is not None
            states[slot.worker_id] = {
                "is_connected": update != "shutdown",
                "status": "offline" if update == "shutdown" else "busy" if busy else "idle",
                "current_job_id": slot.current_job_id,
                "last_activity": ms,
                "version": __version__,
            }
            for name in offered:
                services[f"{slot.worker_id}.{name}"] = {
                    "worker_id": slot.worker_id,
                    "service_type": name,
                    "pm2_name": slot.worker_id,
                    "status": "active" if busy else "inactive",
                    "health": "healthy",
                }
        return {
            "machine_id": self._settings.machine_id,
            "timestamp": ms,
            "update_type": update,
            "structure": {"gpu_count": 0, "capabilities": [], "workers": workers, "services": services},
            "status": {
                "machine": {
                    "phase": "shutdown" if update == "shutdown" else "ready",
                    "uptime_ms": int((time.monotonic() - self._began) * 1000),
                },
                "workers": states,
                "services": services,
            },
            "health_url": "",
        }


def slot_capabilities(capabilities: Mapping[str, Any]) -> bytes:
    """Capabilities as the argument of a claim: without the id, which is the slot's."""
    return _encode({k: v for k, v in capabilities.items() if v != WORKER_ID_MARK})
