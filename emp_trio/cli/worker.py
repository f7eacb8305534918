"""``emp-trio worker``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emp_trio.cli.connection import RedisOption, redis_url
from emp_trio.cli.output import OK
from emp_trio.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from emp_trio.mapping import Plan
    from emp_trio.secrets import Secret

_STATE = Path(".emp-trio")
_FLEET_LEVELS = {"warn": "warning", "http": "debug", "verbose": "debug", "silly": "debug", "trace": "debug"}


async def worker(
    *,
    workers: str | None = None,
    mapping: Path | None = None,
    redis: RedisOption = None,
    machine_id: str | None = None,
    drain: float | None = None,
    take_over: bool = False,
    durable: bool = False,
    adopt_orphans: float | None = None,
    embedded: bool = False,
    state: Path = _STATE,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
    log_format: Literal["console", "json"] | None = None,
) -> int:
    """Claim jobs from the queue and run them until stopped.

    Every slot is a worker of the fleet with its own id, MACHINE-worker-TYPE-N.
    The first SIGTERM, SIGHUP or ^C stops claiming and lets running jobs finish.
    Jobs that do not finish within --drain seconds go back to the queue; this
    does not count as an attempt. The second signal requeues all jobs at once.

    For example:

        emp-trio worker --workers "openai:4,mock:10" --redis redis://localhost:6379
        emp-trio worker --embedded --workers mock:2

    Args:
        workers: Worker types and counts, such as "openai:4,comfyui:auto". Default: WORKERS.
            If WORKER_ID is set: one slot with that id, of the type in CONNECTORS.
        mapping: Service mapping file. Default: SERVICE_MAPPING, then the mapping of the package.
        machine_id: Name of this machine in the fleet. Default: MACHINE_ID, then the host name.
        drain: Seconds for running jobs to finish after the first signal. Default: 30.
        take_over: If another live process has slots with the same ids, stop that process instead of this one.
        durable: Count an outcome as stored only when it is on the disk of Redis, and on a replica if there is one.
        adopt_orphans: Requeue jobs of the fleet's other workers after this many seconds without a heartbeat.
            60 if no value is given. Counts as an attempt. Default: EMP_TRIO_ADOPT_ORPHANS_SECONDS, then off.
        embedded: Run an embedded Valkey server, for an installation on one machine.
        state: Folder for the data of the embedded server. Jobs in it survive a restart.
        log_level: Minimum level to log. Default: LOG_LEVEL, then info.
        log_format: Log format. Default: LOG_FORMAT, then console on a terminal and json elsewhere.
    """
    import msgspec

    from emp_trio.cli.configuration import configure
    from emp_trio.ops.logs import configure_logs
    from emp_trio.queue.port import RedisSettings
    from emp_trio.secrets import Redactor, hold
    from emp_trio.secrets.credentials import url_secrets
    from emp_trio.worker.capabilities import detect_hardware

    if embedded and redis:
        raise ConfigError("--embedded starts a server of its own: leave --redis out")
    url = None if embedded else redis_url(redis)
    env = dict(os.environ)
    hardware = await detect_hardware(env)
    configuration = configure(
        env,
        mapping=mapping,
        workers=workers,
        gpus=hardware.gpus,
        machine_id=machine_id,
        drain=drain,
        adopt_orphans=adopt_orphans,
    )
    if not configuration.asked:
        raise ConfigError('no workers are named: give --workers, for example "mock:2", or set WORKERS')
    if configuration.plan is None or configuration.worker is None or configuration.storage is None:
        raise ConfigError("the worker can't start:", problems=configuration.errors)
    planned, storage = configuration.plan, configuration.storage
    settings = msgspec.structs.replace(configuration.worker, take_over=take_over, durable=durable)
    hold(*planned.secrets, *(url_secrets(url) if url is not None else ()), *storage.secrets)
    redactor = Redactor()
    configured = env.get("LOG_LEVEL", "").strip().lower()
    level = log_level or _FLEET_LEVELS.get(configured, configured) or "info"
    written = configure_logs(level=level, style=log_format or _style(env), redactor=redactor, stream=sys.stderr)
    _log_configuration(configuration.problems, planned)

    async def run(at: Secret) -> None:
        from emp_trio.worker.run import run_machine

        _settle_down()
        await run_machine(
            planned,
            settings,
            RedisSettings(url=at, reply_timeout=settings.redis_timeout),
            storage,
            environment=env,
            hardware=hardware,
            redactor=redactor,
        )

    try:
        if url is not None:
            await run(url)
        else:
            await _run_embedded(state, run)
    finally:
        written()
    return OK


def _style(env: Mapping[str, str]) -> Literal["console", "json"] | None:
    configured = env.get("LOG_FORMAT", "").strip().lower()
    return "json" if configured == "json" else "console" if configured == "console" else None


def _settle_down() -> None:
    """Exclude imported modules from garbage collection and collect less often than every 700 allocations."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _log_configuration(problems: Sequence[Problem], planned: Plan) -> None:
    import structlog

    log = structlog.get_logger("emp_trio.worker")
    for problem in problems:
        log.warning("configuration", problem=str(problem))
    for service in planned.services.values():
        lacks = service.connector.features(service.settings).lacks()
        if lacks:
            limits = [f"no {name.replace('_', ' ')}: {reason}" for name, reason in lacks.items()]
            log.info("service.limits", service=service.worker_service, connector=service.connector_name, limits=limits)


async def _run_embedded(state: Path, run: Callable[[Secret], Awaitable[None]]) -> None:
    """Run with an embedded server; cancel the run if the server exits."""
    from emp_trio.nursery import leading_error_raised, open_background
    from emp_trio.queue.embedded import open_embedded_server
    from emp_trio.secrets import Secret

    async with open_embedded_server(state) as server:
        print(f"queue at {server.tcp_url} - for the other commands: export HUB_REDIS_URL={server.tcp_url}", flush=True)
        with leading_error_raised():
            async with open_background() as nursery:
                nursery.start_soon(server.watch)
                await run(Secret(server.url))
