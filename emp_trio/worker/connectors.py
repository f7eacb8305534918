"""Connector supervisors: open each connector, check its health, and reopen it after a crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog
import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import EmpTrioError, NotStarted, ServiceError
from emp_trio.mapping import ServicePlan
from emp_trio.nursery import leading_error
from emp_trio.services.connector import Connector, Health, open_connector
from emp_trio.services.probing import NO_ROUTE
from emp_trio.worker.circuit import Circuit, Verdict
from emp_trio.worker.context import MachineContext
from emp_trio.worker.observer import ConnectorHealthChanged
from emp_trio.worker.outcome import described
from emp_trio.worker.standstill import CONNECTOR
from emp_trio.worker.wakeup import Wakeup, first_of

log = structlog.get_logger("emp_trio.connector")


class Admission:
    """Permission for one job to use a service. The end of the ``with`` block reports the outcome to the circuit.

    Attributes:
        connector: the open connector.
        verdict: effect of the job's end on the circuit.
        trouble: error message, redacted, or "".
    """

    __slots__ = ("_began", "_supervisor", "connector", "trouble", "verdict")

    def __init__(self, supervisor: Supervisor, connector: Connector, began: float) -> None:
        self.connector = connector
        self.verdict: Verdict = "neutral"
        self.trouble = ""
        self._supervisor = supervisor
        self._began = began

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *error: object) -> None:
        self._supervisor.ended(self._began, self.verdict, self.trouble)


class Supervisor:
    """Supervises the connector of a worker service, and decides whether jobs may be claimed for it.

    Args:
        plan: connector class and settings.
        connector_context: context for connectors.
        changed: called when the service becomes usable or unusable.

    Attributes:
        connector: the open connector, or None.
        health: last known health.
        models: models of the service.
        checked: set after the first health check.
    """

    def __init__(
        self,
        plan: ServicePlan,
        context: MachineContext,
        connector_context: ConnectorContext,
        changed: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.connector: Connector | None = None
        self.health = Health(healthy=False, detail="starting")
        self.models: list[str] = []
        self.checked = trio.Event()
        self._connector_context = connector_context
        self._settings = settings = context.settings
        self._redactor = context.redactor
        self._observers = context.observers
        self._changed = changed
        self._check_now = Wakeup()
        self._tries = 0
        self._circuit = Circuit(settings.circuit_failures, settings.circuit_pause, settings.circuit_longest)
        self._trouble = ""
        self._was_usable = False

    @property
    def usable(self) -> bool:
        """Return whether jobs may be claimed for this service."""
        return self.connector is not None and self.health.healthy and self._circuit.admits(trio.current_time())

    def admit(self) -> Admission:
        """Admit a job that is about to start.

        Raises:
            NotStarted: the connector closed, or the circuit opened, since the claim.
        """
        now = trio.current_time()
        admitted = self.connector is not None and self._circuit.begin(now)
        if self.connector is not None:
            self._notify()
        if self.connector is None or not admitted:
            raise NotStarted("the service can't be used for now", retry_after=self._settings.health_retry)
        return Admission(self, self.connector, now)

    def ended(self, began: float, said: Verdict, trouble: str) -> None:
        """Record the end of an admitted job.

        A failure of the service triggers a health check; consecutive failures, or a fatal one, open the circuit.

        Args:
            began: Trio time at which it was admitted.
            said: effect on the circuit.
            trouble: error message, redacted, or "".
        """
        before = self._circuit.until
        self._circuit.end(said, trio.current_time(), began=began)
        if said in ("bad", "fatal"):
            self._trouble = trouble
        if said in ("bad", "fatal", "unready"):
            self._check_now.set()
        if self._circuit.until is not None and self._circuit.until != before:
            pause = self._circuit.until - trio.current_time()
            self._health_changed("circuit_open", detail=self._trouble, seconds=pause)
        elif before is not None and self._circuit.until is None:
            self._health_changed("circuit_closed")
        self._notify()

    def status(self) -> dict[str, Any]:
        """Return the status in the fleet's format (queue protocol 2.6 b)."""
        name = self.plan.connector_name
        if self.usable:
            return {"connector_id": name, "status": "active"}
        word = "inactive" if self.connector is not None else "error"
        detail = self.health.detail
        if self.health.healthy:
            detail = f"too many jobs have failed, no more are taken for a while: {self._trouble}"
        return {"connector_id": name, "status": word, "error_message": detail}

    async def run(self) -> None:
        """Keep the connector open until cancelled."""
        CONNECTOR.set(self.plan.connector_name)
        while True:
            try:
                async with open_connector(
                    self.plan.connector, self.plan.settings, self._connector_context
                ) as connector:
                    self.connector = connector
                    await first_of(lambda: self._watch(connector), lambda: self._listen(connector))
            except BaseException as error:  # noqa: BLE001 - any error of a connector reopens it
                await trio.lowlevel.checkpoint_if_cancelled()  # re-raise our own cancellation
                self.connector = None
                self._set_health(Health(healthy=False, detail=self._log_error(error, "connector.crashed")))
            finally:
                self.connector = None
            self._tries += 1
            pause = min(self._settings.health_every, self._settings.health_retry * 2 ** min(self._tries - 1, 10))
            await trio.sleep(pause * random.uniform(0.5, 1.0))

    async def _watch(self, connector: Connector) -> None:
        while True:
            health = await self._check(connector)
            if health.healthy and not self.health.healthy:
                self._tries = 0
                self.models = await self._models(connector)
            self._set_health(health)
            pause = self._settings.health_every if health.healthy else self._settings.health_retry
            pause *= random.uniform(0.8, 1.2)
            if self._circuit.until is not None:
                pause = min(pause, max(self._circuit.until - trio.current_time(), self._settings.health_retry))
            await self._check_now.wait(pause)

    async def _listen(self, connector: Connector) -> None:
        """Check the health whenever the connector reports a change."""
        try:
            while True:
                await connector.health_changes()
                self._check_now.set()
                await trio.lowlevel.checkpoint()  # let other tasks run, even if that call never blocks
        except Exception as error:  # noqa: BLE001 - an error here is harmless: health is checked periodically
            self._log_error(error, "connector.health_changes")
            await trio.sleep_forever()

    async def _check(self, connector: Connector) -> Health:
        """Run the connector's health check. Its errors do not close the connector, which may have running jobs."""
        if not connector.features(connector.settings).health_check:
            return Health(healthy=True)
        limit = self._settings.health_timeout
        with trio.move_on_after(limit):
            try:
                found = msgspec.convert(msgspec.structs.asdict(await connector.health()), Health)
                return msgspec.structs.replace(found, detail=self._redactor.text(found.detail))
            except EmpTrioError as error:
                return Health(healthy=False, detail=self._redactor.text(error.message))
            except Exception as error:  # noqa: BLE001 - a connector's health check may raise anything
                return Health(healthy=False, detail=self._log_error(error, "connector.health"))
        return Health(healthy=False, detail=f"no answer to the health check within {limit:g} s")

    async def _models(self, connector: Connector) -> list[str]:
        with trio.move_on_after(self._settings.health_timeout):
            try:
                return [self._redactor.known(name) for name in msgspec.convert(await connector.models(), list[str])]
            except ServiceError as error:
                if error.status not in NO_ROUTE:  # a service without the route has no models to list
                    self._log_error(error, "connector.models")
            except Exception as error:  # noqa: BLE001 - a failed list of models counts as empty
                self._log_error(error, "connector.models")
        return []

    def _log_error(self, error: BaseException, event: str) -> str:
        """Log an error, with its traceback if it is not an EmpTrioError. Return its message."""
        text = described(error, self._redactor).message
        ours = isinstance(leading_error(error), EmpTrioError)
        log.error(event, service=self.plan.worker_service, error=text, exc_info=None if ours else error)
        return text

    def _set_health(self, health: Health) -> None:
        before, self.health = self.health, health
        self.checked.set()
        if before != health and health.healthy:
            self._health_changed("healthy")
        elif before != health:
            self._health_changed("unhealthy", detail=health.detail)
        self._notify()

    def _health_changed(
        self,
        state: Literal["healthy", "unhealthy", "circuit_open", "circuit_closed"],
        *,
        detail: str = "",
        seconds: float = 0.0,
    ) -> None:
        if tell := self._observers.connector_health_changed:
            tell(
                ConnectorHealthChanged(
                    service=self.plan.worker_service,
                    connector=self.plan.connector_name,
                    state=state,
                    detail=detail,
                    seconds=seconds,
                )
            )

    def _notify(self) -> None:
        """Call ``changed`` if the service became usable or unusable."""
        usable = self.usable
        if usable != self._was_usable:
            self._was_usable = usable
            self._changed()
