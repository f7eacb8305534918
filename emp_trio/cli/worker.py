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
    """Take jobs from the queue and run them until told to stop.

    Every slot is a worker of the fleet with an id of its own, MACHINE-worker-TYPE-N. The first SIGTERM, SIGHUP or ^C
    stops claiming and lets running jobs finish; what is not done in time goes back to the queue without using an
    attempt. The second one hands everything back at once.

    For example::

        emp-trio worker --workers "simulation-http:2,mock:10" --redis redis://localhost:6379
        emp-trio worker --embedded --workers mock:2

    Args:
        workers: Worker types and counts, as "openai:4,comfyui:auto"; else WORKERS. With WORKER_ID set, one slot of
            exactly that id and of the type CONNECTORS names.
        mapping: Service mapping file; else SERVICE_MAPPING, else the one that comes with emp-trio.
        machine_id: Name of this machine in the fleet; else MACHINE_ID, else the host name.
        drain: Seconds that running jobs get after the first signal; 30 unless said.
        take_over: Where another live process has slots of the same ids, have that one leave instead of this one.
        durable: An outcome counts as stored only when it is on the disk of Redis, and in a replica where it has one.
        adopt_orphans: Put back jobs of the fleet's other workers whose heartbeat has been gone for so many seconds, 60
            unless said; an attempt is counted. Else EMP_TRIO_ADOPT_ORPHANS_SECONDS; by default they are left alone.
        embedded: Run a Valkey server of our own, for a one-machine installation, with its data in --state.
        state: Folder of the embedded server; its jobs are there again at the next start.
        log_level: Least level to log; else LOG_LEVEL, else info.
        log_format: Log for people or as JSON lines; else LOG_FORMAT, else console on a terminal and json elsewhere.
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
    found = configure(
        env,
        mapping=mapping,
        workers=workers,
        gpus=hardware.gpus,
        machine_id=machine_id,
        drain=drain,
        adopt_orphans=adopt_orphans,
    )
    if not found.asked:
        raise ConfigError('no workers are named: give --workers, for example "mock:2", or set WORKERS')
    if found.plan is None or found.worker is None or found.storage is None:
        raise ConfigError("the worker can't start:", problems=found.errors)
    planned, storage = found.plan, found.storage
    settings = msgspec.structs.replace(found.worker, take_over=take_over, durable=durable)
    hold(*planned.secrets, *(url_secrets(url) if url is not None else ()), *storage.secrets)
    redactor = Redactor()
    said = env.get("LOG_LEVEL", "").strip().lower()
    level = log_level or _FLEET_LEVELS.get(said, said) or "info"
    written = configure_logs(level=level, style=log_format or _style(env), redactor=redactor, stream=sys.stderr)
    _log_configuration(found.problems, planned)

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
    said = env.get("LOG_FORMAT", "").strip().lower()
    return "json" if said == "json" else "console" if said == "console" else None


def _settle_down() -> None:
    """What was imported stays for the life of the process: collecting garbage among it again and again is work for
    nothing, and short-lived objects of many jobs need no look at every seven hundred."""
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
            said = [f"no {name.replace('_', ' ')}: {so}" for name, so in lacks.items()]
            log.info("service.limits", service=service.worker_service, connector=service.connector_name, limits=said)


async def _run_embedded(state: Path, run: Callable[[Secret], Awaitable[None]]) -> None:
    """Run with a server of our own; if that ends by itself, so does the run."""
    from emp_trio.nursery import leading_error_raised, open_background
    from emp_trio.queue.embedded import open_embedded_server
    from emp_trio.secrets import Secret

    async with open_embedded_server(state) as server:
        print(f"queue at {server.tcp_url} - for the other commands: export HUB_REDIS_URL={server.tcp_url}", flush=True)
        with leading_error_raised():
            async with open_background() as nursery:
                nursery.start_soon(server.watch)
                await run(Secret(server.url))
