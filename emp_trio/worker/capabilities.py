"""Capabilities of a slot as the fleet reads them (queue protocol 4.3), and the hardware of its machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import trio

from emp_trio import __version__

WORKER_ID_MARK: Final = "@WORKER_ID@"  # placeholder for the slot's id in text shared by all slots of a type
FLEET_MEMORY_GB: Final = 8
"""The fleet's default for GPU memory and RAM in GB (queue protocol 4.3)."""

_NVIDIA_LIMIT: Final = 3.0  # seconds; nvidia-smi hangs on a broken driver


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """Hardware of a machine; memory in GB, rounded down."""

    gpus: int = 0
    gpu_memory_gb: int = 0
    gpu_model: str = "unknown"
    cpu_cores: int = 1
    ram_gb: int = 1


async def detect_hardware(env: Mapping[str, str]) -> Hardware:
    """Detect the hardware of this machine.

    Overridden by ``NUM_GPUS``, ``WORKER_GPU_MEMORY_GB``, ``WORKER_GPU_MODEL`` and ``WORKER_RAM_GB``.

    Without a GPU, GPU memory is :data:`FLEET_MEMORY_GB`, and RAM at least that, so that this machine accepts every job
    that a worker of the fleet would accept here.
    """
    found = parse_nvidia_smi(await _nvidia_smi())
    gpus = _int(env, "NUM_GPUS", len(found))
    memory, model = found[0] if found else (FLEET_MEMORY_GB, "unknown")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Hardware(
        gpus=gpus,
        gpu_memory_gb=_int(env, "WORKER_GPU_MEMORY_GB", memory),
        gpu_model=env.get("WORKER_GPU_MODEL") or model,
        cpu_cores=os.cpu_count() or 1,
        ram_gb=_int(env, "WORKER_RAM_GB", max(FLEET_MEMORY_GB, pages >> 30)),
    )


async def _nvidia_smi() -> str:
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return ""
    command = [binary, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    with trio.move_on_after(_NVIDIA_LIMIT):
        try:
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
        except OSError:
            return ""
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return ""


def parse_nvidia_smi(text: str) -> list[tuple[int, str]]:
    """Parse GPUs as (memory in GB, name) from the CSV lines ``MiB, name`` of nvidia-smi."""
    gpus: list[tuple[int, str]] = []
    for line in text.splitlines():
        memory, _, name = line.partition(",")
        if memory.strip().isdigit() and name.strip():
            gpus.append((round(int(memory) / 1024), name.strip()))
    return gpus


def capabilities(
    env: Mapping[str, str],
    hardware: Hardware,
    *,
    machine_id: str,
    services: Sequence[str],
    models: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the capabilities of a worker type's slots, with ``@WORKER_ID@`` for the id (queue protocol 4.3).

    Args:
        services: job types whose connector is usable; the only field used for routing.
        models: service type -> models.
    """
    found: dict[str, Any] = {
        "worker_id": WORKER_ID_MARK,
        "machine_id": machine_id,
        "services": list(services),
        "job_service_required_map": list(services),
        "hardware": {
            "ram_gb": hardware.ram_gb,
            "gpu_memory_gb": hardware.gpu_memory_gb,
            "gpu_model": hardware.gpu_model,
            "cpu_cores": hardware.cpu_cores,
        },
        "models": {name: list(names) for name, names in models.items() if names},
        "customer_access": _customer_access(env),
        "performance": {
            "concurrent_jobs": 1,
            "quality_levels": _list(env, "QUALITY_LEVELS") or ["fast", "balanced", "quality"],
            "max_processing_time_minutes": _int(env, "MAX_PROCESSING_TIME_MINUTES", 60),
        },
        "metadata": {
            "version": env.get("VERSION") or __version__,
            "python_version": platform.python_version(),
            "platform": platform.system().lower(),
            "arch": platform.machine(),
        },
    }
    if region := env.get("WORKER_REGION"):
        found["location"] = _given(
            region=region,
            country=env.get("WORKER_COUNTRY"),
            compliance_zones=_list(env, "WORKER_COMPLIANCE") or [],
            data_residency_requirements=_list(env, "WORKER_DATA_RESIDENCY"),
        )
    if tier := env.get("WORKER_COST_TIER"):
        found["cost"] = _given(
            tier=tier,
            rate_per_hour=_float(env, "WORKER_RATE_PER_HOUR"),
            rate_per_job=_float(env, "WORKER_RATE_PER_JOB"),
            minimum_charge=_float(env, "WORKER_MINIMUM_CHARGE"),
        )
    found |= _given(**{name: _list(env, variable) for name, variable in _LISTS.items()})
    found |= _given(**{name: env.get(variable) for name, variable in _TEXTS.items()})
    found |= {name: env[variable] == "true" for name, variable in _FLAGS.items() if env.get(variable)}
    if size := _int(env, "WORKER_MAX_BATCH_SIZE", 0):
        found["max_batch_size"] = size
    return found


_LISTS: Final = {
    "asset_type": "WORKER_ASSET_TYPE",
    "available_models": "WORKER_MODELS",
    "features": "WORKER_FEATURES",
    "limitations": "WORKER_LIMITATIONS",
}
_TEXTS: Final = {
    "performance_tier": "WORKER_PERFORMANCE_TIER",
    "specialization": "WORKER_SPECIALIZATION",
    "sla_tier": "WORKER_SLA_TIER",
    "availability": "WORKER_AVAILABILITY",
    "comfyui_version": "WORKER_COMFYUI_VERSION",
    "a1111_version": "WORKER_A1111_VERSION",
    "workflow_id": "WORKER_WORKFLOW_ID",
}
_FLAGS: Final = {
    "debugging_enabled": "DEBUGGING_ENABLED",
    "experimental_mode": "WORKER_EXPERIMENTAL_MODE",
    "development_mode": "DEVELOPMENT_MODE",
    "memory_constrained": "WORKER_MEMORY_CONSTRAINED",
    "multi_service": "WORKER_MULTI_SERVICE",
}


def _customer_access(env: Mapping[str, str]) -> dict[str, Any]:
    return _given(
        isolation=env.get("WORKER_CUSTOMER_ISOLATION") or env.get("CUSTOMER_ISOLATION") or "loose",
        allowed_customers=_list(env, "ALLOWED_CUSTOMERS"),
        denied_customers=_list(env, "DENIED_CUSTOMERS"),
        max_concurrent_customers=_int(env, "MAX_CONCURRENT_CUSTOMERS", 10),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _list(env: Mapping[str, str], variable: str) -> list[str] | None:
    """Parse a JSON array of texts or a comma-separated list; None if the variable is not set."""
    text = env.get(variable, "").strip()
    if not text:
        return None
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            pass
    return [part.strip() for part in text.split(",") if part.strip()]


def _int(env: Mapping[str, str], variable: str, default: int) -> int:
    value = _float(env, variable)
    return default if value is None else int(value)


def _float(env: Mapping[str, str], variable: str) -> float | None:
    """Parse a finite number; None if there is none."""
    try:
        value = float(env.get(variable) or "x")
    except ValueError:
        return None
    return value if abs(value) <= 2**53 else None
