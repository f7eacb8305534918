"""Check Redis and the services of a plan online: health, data Redis may lose, models that will be shut down."""

from __future__ import annotations

import datetime
import os
from typing import Final

import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, Problem, failure_of
from emp_trio.mapping import Plan, ServicePlan
from emp_trio.nursery import leading_error
from emp_trio.queue.bridge import open_bridge
from emp_trio.queue.durability import risks_of
from emp_trio.queue.port import RedisSettings
from emp_trio.secrets import Secret, hold
from emp_trio.secrets.credentials import url_secrets
from emp_trio.services.connector import open_connector
from emp_trio.worker.settings import WorkerSettings

NOTICE: Final = datetime.timedelta(days=60)
"""Time before the shutdown of a model from which it is reported."""


async def ask_redis(url: Secret) -> list[Problem]:
    """Connect to Redis as a worker does, and check it.

    Returns:
        an error if it is unusable, and a warning for each configuration that may lose jobs.
    """
    hold(*url_secrets(url))
    path = "HUB_REDIS_URL"
    try:
        async with open_bridge(RedisSettings(url=url)) as bridge:
            risks = await risks_of(bridge)
    except EmpTrioError as error:
        return [Problem(path=path, message=error.message)]
    return [
        Problem(path=path, message=f"Redis may lose {risk.loses}: {risk.cause}", hint=risk.hint, severity="warning")
        for risk in risks
    ]


async def ask_services(plan: Plan, worker: WorkerSettings, storage: StorageSettings) -> list[Problem]:
    """Open each connector of the plan as a worker does, and check its service.

    Each check is limited to ``worker.health_timeout`` seconds.

    Returns:
        an error per unusable service, and a warning per configured model that is shut down within :data:`NOTICE`.
    """
    problems: list[Problem] = []
    today = datetime.datetime.now(datetime.UTC).date()
    async with open_asset_storage(storage) as assets, trio.open_nursery() as nursery:
        connector_context = ConnectorContext(assets=assets, environment=dict(os.environ))

        async def ask(service: ServicePlan) -> None:
            path = f'$.services["{service.worker_service}"]'
            try:
                with trio.move_on_after(worker.health_timeout) as limit:
                    problems.extend(await _ask(service, connector_context, path, today))
                reason = f"no answer within {worker.health_timeout:g} s" if limit.cancelled_caught else ""
            except Exception as error:  # noqa: BLE001 - a connector may raise anything; check the others all the same
                reason = failure_of(leading_error(error)).message
            if reason:
                problems.append(Problem(path=path, message=f"the service can't be used: {reason}"))

        for service in plan.services.values():
            nursery.start_soon(ask, service)
    return sorted(problems, key=lambda problem: (problem.severity, problem.path))


async def _ask(
    service: ServicePlan, connector_context: ConnectorContext, path: str, today: datetime.date
) -> list[Problem]:
    async with open_connector(service.connector, service.settings, connector_context) as connector:
        health = await connector.health()
        if not health.healthy:
            raise EmpTrioError(health.detail or "it says that it is not healthy")
        shutdown_dates = await connector.retirements()
    silent = [] if health.told else [Problem(path=path, message=health.detail, severity="warning")]
    return silent + [
        Problem(path=path, message=_retirement(model, end, today), severity="warning")
        for model, end in sorted(shutdown_dates.items())
        if end - today <= NOTICE
    ]


def _retirement(model: str, end: datetime.date, today: datetime.date) -> str:
    days = (end - today).days
    if days <= 0:
        return f"the model {model} was shut down on {end}; configure another one"
    return (
        f"the model {model} will be shut down on {end}, in {days} day{'s' if days > 1 else ''}; configure another one"
    )
