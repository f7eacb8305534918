"""The configuration of a worker, put together in one place: ``worker`` starts with just what ``check`` finds right."""

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
    """What was read, as far as it is right.

    Attributes:
        source: name of the mapping file.
        mapping: its content.
        asked: whether any worker was asked for.
        plan, worker, storage: None where something in them is wrong; ``plan`` also when no worker was asked for.
        problems: everything that is wrong or doubtful; errors first.
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
        """The errors among the problems."""
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
    """Read mapping and environment, and resolve everything; connects to nothing.

    Args:
        env: the environment.
        mapping: ``--mapping``.
        workers: ``--workers``, which comes before what the environment asks for.
        gpus: GPUs of this machine.
        strict: unknown fields of the mapping are errors.
        machine_id, drain, adopt_orphans: options of the worker.

    Returns:
        the configuration, with all its problems.

    Raises:
        ConfigError: there is no mapping to read.
    """
    loaded = load_mapping(mapping_file(mapping, env), strict=strict)
    problems = list(loaded.problems)
    asked, single = (workers, None) if workers is not None else workers_from_env(env)
    planned: Plan | None = None
    if asked or single or workers is not None:
        try:
            planned = plan(loaded.mapping, asked, env=env, gpus=gpus, find_connector=find_connector, single=single)
            problems += planned.warnings
        except ConfigError as error:
            known = {p.path for p in problems if p.severity == "error"}
            problems += [p for p in error.problems if p.path not in known]
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
        asked=bool(asked or single or workers is not None),
        plan=planned if not any(p.severity == "error" for p in loaded.problems) else None,
        worker=worker,
        storage=storage,
        problems=tuple(sorted(problems, key=lambda problem: problem.severity)),
    )
