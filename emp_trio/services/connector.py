"""What the worker needs of a connector, and what a connector gets from the worker.

A connector lists protocol mixins side by side and adds one ``run`` method::

    class OpenAIResponsesConnector(Http, Polling, SavesAssets, Connector): ...

No connector inherits from another one. A mixin that owns resources (an HTTP pool, a socket) has an async context
manager method ``opening``; :func:`open_connector` enters those of all mixins and leaves them in reverse order.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, Final, TypeVar

import msgspec
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job, JobResult
from emp_trio.secrets import held
from emp_trio.secrets.credentials import secrets_in
from emp_trio.settings import setting_fields


class ServiceFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What a service can do; the worker says at start what it can't, and treats it accordingly.

    Attributes:
        health_check: it can be asked whether it can take work.
        job_status: work that it has begun can be found again by another attempt.
        cancellation: work that it has begun can be stopped, by a call or by closing the connection.
        queue_introspection: it says what else it has to do.
    """

    health_check: bool = True
    job_status: bool = False
    cancellation: bool = False
    queue_introspection: bool = False

    def lacks(self) -> dict[str, str]:
        """What the service can't do, each with what follows from it."""
        return {name: text for name, text in _LACKS.items() if not getattr(self, name)}


_LACKS: Final = {
    "health_check": "it is taken for healthy until its jobs fail",
    "job_status": "work that a dead worker has left is begun, and paid for, anew",
    "cancellation": "work goes on in it after its job was cancelled",
    "queue_introspection": "nobody knows how much it has to do for others",
}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of a health check; ``detail`` says why a service is not healthy, and what to do. ``told`` is false where
    the service has no way to say: then it counts as healthy, and the first jobs decide."""

    healthy: bool
    detail: str = ""
    told: bool = True


class Connector:
    """Base of all connectors: identity, settings, and the two calls the worker makes.

    Class attributes:
        service_type: key for status and for ``capabilities.models`` (as the fleet's connectors use it).
        service_features: what the service can do.
        takes_any_payload: whether jobs are taken whose payload is no JSON object (``Job.bare_payload``); the others
            fail with what is wrong.
        Settings: frozen struct of settings (see :mod:`emp_trio.settings`).
    """

    service_type: ClassVar[str] = ""
    service_features: ClassVar[ServiceFeatures] = ServiceFeatures()
    takes_any_payload: ClassVar[bool] = False

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """No settings."""

    def __init__(self, settings: Any, connector_context: ConnectorContext) -> None:
        self.settings = settings
        self.connector_context = connector_context

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "Settings" in cls.__dict__:
            setting_fields(cls.Settings)  # a shared name is an error when the class is made
        lineage = [base.__name__ for base in cls.__mro__[1:] if "run" in base.__dict__ and base is not Connector]
        if lineage:
            raise TypeError(
                f"{cls.__name__} inherits from the connector {lineage[0]}: share a function or a mixin instead"
            )

    @classmethod
    def name(cls) -> str:
        """The connector's name: that of its class, as in the mapping."""
        return cls.__name__

    @classmethod
    def features(cls, settings: Any) -> ServiceFeatures:
        """What the service can do with these settings; ``service_features``, unless the settings decide."""
        return cls.service_features

    async def run(self, job: Job, context: AttemptContext) -> JobResult:
        """Run one attempt.

        Args:
            job: the job; its payload and context are not changed.
            context: what the attempt has of the worker.

        Returns:
            a successful JobResult.

        Raises:
            EmpTrioError: with the failure class that fits. Anything else counts as an internal error.
            trio.Cancelled: passed on after cleanup; cleanup is shielded and bounded, and stops the upstream work only
                when ``context.stop_remote_work`` says so.
        """
        raise TypeError(f"{type(self).__name__} has no run method")

    async def health(self) -> Health:
        """Ask the service whether it can take work. Must return within the connection settings' limits."""
        return Health(healthy=True)

    async def health_changes(self) -> None:
        """Come back when :meth:`health` has another answer than it had when this was called last, so that it is asked
        now instead of at its next turn. A connector that learns of its service by itself overrides this."""
        await trio.sleep_forever()

    async def models(self) -> list[str]:
        """Models the service offers, for ``capabilities.models``; empty where there is nothing to ask."""
        return []

    async def retirements(self) -> Mapping[str, datetime.date]:
        """Models that these settings name and the day from which each is gone, as far as the service says so."""
        return {}


C = TypeVar("C", bound=Connector)


@asynccontextmanager
async def open_connector(cls: type[C], settings: Any, connector_context: ConnectorContext) -> AsyncIterator[C]:
    """Make a connector and open what its mixins own.

    Args:
        cls: the connector class.
        settings: an instance of ``cls.Settings``.
        connector_context: what the worker gives it.

    Yields:
        the open connector; everything is closed, last opened first, when the block ends.
    """
    connector = cls(settings, connector_context)
    async with AsyncExitStack() as stack:
        stack.enter_context(held(*secrets_in(settings)))
        for part in reversed(cls.__mro__):
            opening = part.__dict__.get("opening")
            if opening is not None:
                await stack.enter_async_context(opening(connector))
        yield connector
