"""Read the configuration of a worker, for ``worker`` and ``check`` alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from emp_trio.assets.config import StorageSettings, storage_settings
from emp_trio.cli.mapping_option import mapping_file
from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping import Plan, ServiceMapping, load_mapping, plan, workers_from_env
from emp_trio.services.registry import find_connector
from emp_trio.worker.settings import WorkerSettings, worker_settings


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """The valid parts of a configuration, and its problems.

    Attributes:
        source: name of the mapping file.
        mapping: content of the mapping file.
        asked: whether workers were requested.
        plan, worker, storage: None if they have errors; ``plan`` also if no workers were requested.
        problems: errors, then warnings.
    """

    source: str
    mapping: ServiceMapping
    asked: bool
    plan: Plan | None
    worker: WorkerSettings | None
    storage: StorageSettings | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems of severity error."""
        return tuple(p for p in self.problems if p.severity == "error")


def configure(
    env: Mapping[str, str],
    *,
    mapping: Path | None,
    workers: str | None,
    gpus: int,
    strict: bool = False,
    machine_id: str | None = None,
    drain: float | None = None,
    adopt_orphans: float | None = None,
) -> Configuration:
    """Read mapping and environment and resolve the plan, without connecting to anything.

    Args:
        env: the environment.
        mapping: ``--mapping``; None for the mapping of the package.
        workers: ``--workers``; None for the worker string of the environment.
        gpus: number of GPUs of this machine.
        strict: report unknown fields of the mapping as errors.
        machine_id, drain, adopt_orphans: options of the worker; the last two in seconds.

    Returns:
        the configuration with all its problems.

    Raises:
        ConfigError: the mapping file can't be read.
    """
    loaded = load_mapping(mapping_file(mapping, env), strict=strict)
    problems = list(loaded.problems)
    worker_string, single = (workers, None) if workers is not None else workers_from_env(env)
    planned: Plan | None = None
    if worker_string or single or workers is not None:
        try:
            planned = plan(
                loaded.mapping, worker_string, env=env, gpus=gpus, find_connector=find_connector, single=single
            )
            problems += planned.warnings
        except ConfigError as error:
            reported = {p.path for p in problems if p.severity == "error"}
            problems += [p for p in error.problems if p.path not in reported]
    worker: WorkerSettings | None = None
    storage: StorageSettings | None = None
    try:
        worker = worker_settings(env, machine_id=machine_id, drain=drain, adopt_orphans=adopt_orphans)
    except ConfigError as error:
        problems += error.problems
    try:
        storage = storage_settings(env)
    except ConfigError as error:
        problems += error.problems
    return Configuration(
        source=loaded.source,
        mapping=loaded.mapping,
        asked=bool(worker_string or single or workers is not None),
        plan=planned if not any(p.severity == "error" for p in loaded.problems) else None,
        worker=worker,
        storage=storage,
        problems=tuple(sorted(problems, key=lambda problem: problem.severity)),
    )
