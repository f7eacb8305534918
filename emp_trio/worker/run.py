"""Running a machine: its connection, its storage and its lease keeper are opened, and closed after it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.connector_context import ConnectorContext
from emp_trio.mapping import Plan
from emp_trio.nursery import leading_error_raised, outliving
from emp_trio.queue import library
from emp_trio.queue.bridge import Bridge, open_bridge
from emp_trio.queue.durability import tell_risks
from emp_trio.queue.durable import DurableWrites, open_durable_writes
from emp_trio.queue.keeper import open_thread_keeper
from emp_trio.queue.keeping import KeepSettings, OpenKeeper
from emp_trio.queue.port import RedisSettings
from emp_trio.queue.worker_queue import WorkerQueue
from emp_trio.secrets import Redactor
from emp_trio.worker.capabilities import Hardware
from emp_trio.worker.context import MachineContext
from emp_trio.worker.job_log import JobLog
from emp_trio.worker.machine import Machine
from emp_trio.worker.observer import JobObserver, Observers
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.standstill import where


async def run_machine(
    plan: Plan,
    settings: WorkerSettings,
    redis: RedisSettings,
    storage: StorageSettings,
    *,
    environment: Mapping[str, str],
    hardware: Hardware,
    redactor: Redactor,
    observers: Sequence[JobObserver] = (),
    open_keeper: OpenKeeper | None = None,
    task_status: trio.TaskStatus[Machine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a machine until a signal or ``Machine.shutdown.stop``, then drain it.

    Cancellation requeues the running jobs at once.

    Args:
        plan: what to run, from :func:`emp_trio.mapping.plan`.
        environment: environment with capabilities.
        redactor: masks the secrets of settings, storage and Redis.
        observers: observers of job events, in addition to the log.
        open_keeper: opens the keeper, which renews the leases; by default a thread with its own connection.

    Raises:
        ConfigError: Redis rejects the login or is too old.
        MachineIdInUse: another live process has slots with the same ids and stays.
        NotSent: Redis is unreachable.
    """
    keeper = open_keeper or partial(open_thread_keeper, redis, limit=settings.renew_timeout, where=where)
    machine: Machine | None = None

    def pushed() -> None:
        if machine is not None:
            machine.pushed()

    def connected() -> None:
        if machine is not None:
            machine.connected()

    opening = _open_resources(
        storage,
        open_bridge(redis, on_pending=pushed, on_connect=connected),
        open_durable_writes(redis) if settings.durable else nullcontext(),
    )
    with leading_error_raised():
        # the connections outlive jobs that are handed back by them
        async with outliving(opening) as (assets, bridge, durable):
            queue = WorkerQueue(bridge, durable=durable)
            await queue.retry_until_accepted(lambda: library.ensure(bridge), patience=redis.patience)
            await tell_risks(bridge)
            context = MachineContext(
                settings=settings, queue=queue, redactor=redactor, observers=Observers([JobLog(), *observers])
            )
            connector_context = ConnectorContext(assets=assets, environment=environment)
            machine = Machine(plan, context, connector_context, hardware)
            async with keeper(machine.table, machine.process, _keep(settings), machine):
                await machine.run(bridge, task_status=task_status)


@asynccontextmanager
async def _open_resources(
    storage: StorageSettings,
    opening: AbstractAsyncContextManager[Bridge],
    waiting: AbstractAsyncContextManager[DurableWrites | None],
) -> AsyncIterator[tuple[AssetStorage, Bridge, DurableWrites | None]]:
    async with open_asset_storage(storage) as assets, opening as bridge, waiting as durable:
        yield assets, bridge, durable


def _keep(settings: WorkerSettings) -> KeepSettings:
    return KeepSettings(
        lease=settings.lease,
        renew_every=settings.renew_every,
        alive_every=min(settings.renew_every, settings.beat_every),
        standstill=settings.standstill,
    )
