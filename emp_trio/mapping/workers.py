"""Parse worker strings such as ``comfyui:2,openai:auto`` into worker types and counts. Pure.

The rules are those of the fleet (service mapping reference 4.1) without its defects; see ``docs/worker-strings.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from emp_trio.errors import Problem
from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.instances import instances_per_gpu
from emp_trio.mapping.schema import ServiceMapping, WorkerType
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.secrets import excerpt

MOST_SLOTS: Final = 10_000
"""Maximum workers of one type on one machine; a larger number is a typing mistake."""

FORBIDDEN_IN_IDS: Final = ":./"
"""Not allowed in ids of workers and machines: the fleet's readers split ids there (queue protocol 0.3)."""

WORKERS: Final = "WORKERS"
"""Path of problems with a worker string."""

_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class WorkerCount(msgspec.Struct, frozen=True):
    """A number of workers of one type; ``worker_id`` is the id of a single worker from ``WORKER_ID``."""

    name: str
    count: int
    worker_id: str | None = None


def workers_from_env(env: Mapping[str, str]) -> tuple[str, tuple[str, str] | None]:
    """Return the worker string and the single worker (id and connectors) that the environment configures.

    Process managers that start one process per worker set ``WORKER_ID``: the process is then that worker, of the type
    in ``CONNECTORS`` (which may be empty). ``WORKERS`` is then ignored: the fleet gives each process that of the whole
    machine. Otherwise the worker string is the first of ``WORKERS``, ``WORKER_CONNECTORS`` and ``CONNECTORS`` that is
    not blank.
    """
    worker_id = env.get("WORKER_ID", "").strip()
    if worker_id:
        return "", (worker_id, env.get("CONNECTORS", "").strip())
    names = ("WORKERS", "WORKER_CONNECTORS", "CONNECTORS")
    return next((env[name].strip() for name in names if env.get(name, "").strip()), ""), None


def parse_workers(
    text: str, mapping: ServiceMapping, *, env: Mapping[str, str], gpus: int, diagnostics: Diagnostics
) -> tuple[WorkerCount, ...]:
    """Parse a worker string.

    Args:
        text: comma-separated ``type[:count]``; the count is a whole number (default 1) or ``auto``.
        mapping: defines the worker types.
        env: ``GPU_MODE=mock`` allows any count without GPUs; ``NUM_GPUS`` and ``{TYPE}_CONCURRENCY`` set ``auto``.
        gpus: number of GPUs of this machine.
        diagnostics: receives the problems; a type with an error is omitted.

    Returns:
        worker types with at least one worker, in the order of the string.
    """
    counts: dict[str, int] = {}
    column = 1
    for part in text.split(","):
        name, colon, count = (word.strip() for word in part.partition(":"))
        spec = _Spec(name, count if colon else "1", column + len(part) - len(part.lstrip()), diagnostics)
        column += len(part) + 1
        if not part.strip():
            continue
        worker = mapping.workers.get(name)
        if worker is None:
            known = list(mapping.workers)
            hint = did_you_mean(name, known) or "known types: " + (", ".join(known[:30]) or "none")
            spec.report(f"there is no worker type {excerpt(name, 60)!r}", hint)
        elif name in counts:
            spec.report(f"{name} is named twice", f"write {name} once, with the sum of both counts")
        else:
            counts[name] = _count(spec, worker, mapping, env, gpus) or 0
    if not diagnostics.errors and not any(counts.values()):
        reason = "asks for no worker at all" if counts else "is not set"
        diagnostics.error(WORKERS, reason, "for example comfyui:2,openai:auto; --workers takes it too")
    return tuple(WorkerCount(name, count) for name, count in counts.items() if count)


def single_worker(
    worker_id: str, connectors: str, mapping: ServiceMapping, diagnostics: Diagnostics
) -> tuple[WorkerCount, ...]:
    """Return the worker of a process started with ``WORKER_ID``, or nothing after an error.

    Args:
        worker_id: value of ``WORKER_ID``.
        connectors: worker type (``CONNECTORS``); a count after it is ignored. If empty, the type is read from an id
            that ends in ``worker-{type}-{number}``.
        mapping: defines the worker types; types with a dash in their name are recognised in an id, too.
        diagnostics: receives the problems.
    """
    if bad := sorted({c for c in worker_id if c in FORBIDDEN_IN_IDS or c.isspace() or not c.isprintable()}):
        shown = " ".join(map(repr, bad))
        diagnostics.error("WORKER_ID", f"{excerpt(worker_id, 60)!r} contains {shown}", "use letters, digits, - and _")
        return ()
    if connectors:
        names = [part.split(":")[0].strip() for part in connectors.split(",") if part.strip()]
        if len(names) > 1:
            diagnostics.error("CONNECTORS", "names more than one worker type", "WORKER_ID starts exactly one worker")
            return ()
        name = names[0] if names else ""
        if name not in mapping.workers:
            hint = did_you_mean(name, mapping.workers)
            diagnostics.error("CONNECTORS", f"there is no worker type {excerpt(name, 60)!r}", hint)
            return ()
        return (WorkerCount(name, 1, worker_id),)
    stem, dash, number = worker_id.rpartition("-")
    fitting = [name for name in mapping.workers if stem == f"worker-{name}" or stem.endswith(f"-worker-{name}")]
    if not (dash and _WHOLE_NUMBER.fullmatch(number) and fitting):
        message = f"{worker_id!r} does not end in worker-{{type}}-{{number}} with a type of the mapping"
        diagnostics.error("WORKER_ID", message, "set CONNECTORS to the worker type")
        return ()
    return (WorkerCount(fitting[0], 1, worker_id),)


class _Spec:
    """One ``type[:count]`` of a worker string, and its column."""

    def __init__(self, name: str, count: str, column: int, diagnostics: Diagnostics) -> None:
        self.name = name
        self.count = count
        self.column = column
        self.diagnostics = diagnostics

    def report(self, message: str, hint: str = "", *, severity: Literal["error", "warning"] = "error") -> None:
        self.diagnostics.add(Problem(path=WORKERS, column=self.column, message=message, hint=hint, severity=severity))


def _count(spec: _Spec, worker: WorkerType, mapping: ServiceMapping, env: Mapping[str, str], gpus: int) -> int | None:
    """Return the number of workers of a spec, or None after an error."""
    name, text = spec.name, spec.count
    mock = env.get("GPU_MODE", "").strip().lower() == "mock"
    if text.lower() == "auto":
        return _auto(spec, worker, mapping, env, gpus, mock=mock)
    if not _WHOLE_NUMBER.fullmatch(text):
        spec.report(f"{name}: the count {excerpt(text, 40)!r} is neither a whole number nor auto")
        return None
    count = int(text)
    if count > MOST_SLOTS:
        spec.report(f"{name}: {count} workers are more than the {MOST_SLOTS} allowed")
        return None
    most = gpus * _per_gpu(worker, mapping, env, spec.diagnostics)
    if not worker.is_gpu_bound or worker.type != "direct_worker" or mock or count <= most:
        return count
    if not gpus:
        message = f"{name} is GPU-bound and no GPU was found; starting {count} as asked"
        spec.report(message, "GPU_MODE=mock says that this is meant", severity="warning")
        return count
    each = "one per GPU" if most == gpus else f"{most // gpus} per GPU"
    spec.report(f"{name} is GPU-bound: {most} instead of {count}, {each}", severity="warning")
    return most


def _per_gpu(worker: WorkerType, mapping: ServiceMapping, env: Mapping[str, str], diagnostics: Diagnostics) -> int:
    """Return the number of workers per GPU: the processes that the type's services have there."""
    names = {route.worker_service for route in worker.job_service_required_map} & mapping.services.keys()
    return max((instances_per_gpu(mapping.services[name], name, env, diagnostics) for name in sorted(names)), default=1)


def _auto(
    spec: _Spec, worker: WorkerType, mapping: ServiceMapping, env: Mapping[str, str], gpus: int, *, mock: bool
) -> int | None:
    by_concurrency = worker.scaling_strategy == "concurrency"
    if worker.type == "daemon_client" and by_concurrency and not worker.is_gpu_bound:
        used = {*worker.services, *(route.worker_service for route in worker.job_service_required_map)}
        if any(s.type == "daemon_service" for n, s in mapping.services.items() if n in used):
            devices = _number("NUM_GPUS", 1, env, spec.diagnostics) if mock else gpus
            return devices if devices is None else max(1, devices)
        return _number(_concurrency_variable(spec.name), 2, env, spec.diagnostics)
    if worker.type == "service_client":
        return _number(_concurrency_variable(spec.name), 2, env, spec.diagnostics) if by_concurrency else 1
    if not worker.is_gpu_bound:
        return 1
    if not mock and not gpus:
        message = f"{spec.name}:auto starts no worker: it means one per GPU, and no GPU was found"
        spec.report(message, severity="warning")
    return 1 if mock else gpus * _per_gpu(worker, mapping, env, spec.diagnostics)


def _concurrency_variable(name: str) -> str:
    return re.sub("[^A-Z0-9]", "_", name.upper()) + "_CONCURRENCY"


def _number(variable: str, default: int, env: Mapping[str, str], diagnostics: Diagnostics) -> int | None:
    text = env.get(variable, "").strip()
    if not text:
        return default
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) > MOST_SLOTS:
        diagnostics.error(variable, f"must be a whole number up to {MOST_SLOTS}", variable=variable)
        return None
    return int(text)
