"""Connector supervisors: each opens one connector, keeps it open, asks for its health, and opens it anew if it
crashes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import structlog
import trio

from emp_trio.errors import EmpTrioError, ServiceError, failure_of
from emp_trio.failures import Failure
from emp_trio.mapping import ServicePlan
from emp_trio.secrets import Redactor
from emp_trio.services.connector import Connector, Health, open_connector
from emp_trio.toolbox import Toolbox
from emp_trio.worker.settings import WorkerSettings
from emp_trio.worker.signals import Signal

log = structlog.get_logger("emp_trio.connector")

# Failures that say something about the service and not about the job: worth a health check at once.
_TELLING = frozenset({"network_error", "auth_error"})
_FIRST_RETRY = 0.125  # seconds


class Supervisor:
    """One worker service: its connector while it is open, and whether jobs may be claimed for it.

    Args:
        plan: connector class and settings.
        toolbox: what connectors get.
        settings: pauses and limits of health checks.
        redactor: takes secrets out of what is logged.
        changed: called when the service becomes usable or stops being so.
    """

    def __init__(
        self,
        plan: ServicePlan,
        toolbox: Toolbox,
        settings: WorkerSettings,
        redactor: Redactor,
        changed: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.health = Health(healthy=False, detail="starting")
        self.models: list[str] = []
        self._toolbox = toolbox
        self._settings = settings
        self._redactor = redactor
        self._changed = changed
        self._open: Connector | None = None
        self._look = Signal()
        self._tries = 0

    @property
    def usable(self) -> bool:
        """Whether jobs may be claimed for this service now."""
        return self._open is not None and self.health.healthy

    def connector(self) -> Connector:
        """The open connector. Raises ServiceError while there is none."""
        if self._open is None:
            raise ServiceError(f"the service {self.plan.worker_service} is not available: {self.health.detail}")
        return self._open

    def failed(self, failure: Failure) -> None:
        """Learn of a job's failure: one that tells of the service itself leads to a health check now."""
        if failure.type in _TELLING:
            self._look.set()

    def status(self) -> dict[str, Any]:
        """The fleet's status word for it (queue protocol 2.6 b)."""
        name = self.plan.connector_name
        if self.usable:
            return {"connector_id": name, "status": "active"}
        word = "inactive" if self._open is not None else "error"
        return {"connector_id": name, "status": word, "error_message": self.health.detail}

    async def run(self) -> None:
        """Keep the connector open until cancelled."""
        while True:
            try:
                async with open_connector(self.plan.connector, self.plan.settings, self._toolbox) as connector:
                    self._open = connector
                    await self._watch(connector)
            except Exception as error:
                message = self._redactor.text(failure_of(error).message)
                log.error("connector.crashed", service=self.plan.worker_service, error=message, exc_info=error)
                self._is(Health(healthy=False, detail=message))
            finally:
                self._open = None
            self._tries += 1
            pause = min(self._settings.health_every, self._settings.health_retry * 2 ** min(self._tries - 1, 10))
            await trio.sleep(pause * random.uniform(0.5, 1.0))

    async def _watch(self, connector: Connector) -> None:
        pause = _FIRST_RETRY
        while True:
            health = await self._check(connector)
            if health.healthy and not self.health.healthy:
                self._tries = 0
                self.models = await self._models(connector)
            self._is(health)
            # A service that is just starting is asked again soon, one that stays away less and less often.
            pause = min(self._settings.health_retry, 2 * pause)
            if health.healthy:
                pause = _FIRST_RETRY
            wait = self._settings.health_every if health.healthy else pause
            await self._look.wait(wait * random.uniform(0.8, 1.2))

    async def _check(self, connector: Connector) -> Health:
        if not connector.abilities.health_check:
            return Health(healthy=True)
        limit = self._settings.health_timeout
        with trio.move_on_after(limit):
            try:
                return await connector.health()
            except EmpTrioError as error:
                return Health(healthy=False, detail=self._redactor.text(error.message))
        return Health(healthy=False, detail=f"no answer to the health check within {limit:g} s")

    async def _models(self, connector: Connector) -> list[str]:
        with trio.move_on_after(self._settings.health_timeout):
            try:
                return await connector.models()
            except EmpTrioError as error:
                log.warning(
                    "connector.models", service=self.plan.worker_service, error=self._redactor.text(error.message)
                )
        return []

    def _is(self, health: Health) -> None:
        before, self.health = self.health, health
        if before == health:
            return
        if health.healthy:
            log.info("connector.healthy", service=self.plan.worker_service, connector=self.plan.connector_name)
        else:
            log.warning("connector.unhealthy", service=self.plan.worker_service, detail=health.detail)
        if before.healthy != health.healthy:
            self._changed()
