"""The Connector base class: the interface between the worker and a service.

A connector lists protocol mixins side by side, says of what type its settings are, and adds one ``run`` method::

    class AtelierConnector(Http, Polling, SavesAssets, Connector["AtelierConnector.Settings"]): ...

Each mixin attaches one object (``self.http``, ``self.poller``), which does the work
(:class:`~emp_trio.protocols.part.ConnectorPart`). No connector inherits from another one. :func:`open_connector` opens
what the mixins attach, and closes it in reverse order.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic

import msgspec
import trio

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job, JobResult
from emp_trio.protocols.part import ConnectorPart
from emp_trio.secrets import held
from emp_trio.secrets.credentials import secrets_in
from emp_trio.settings import part_fields, setting_fields

if TYPE_CHECKING:  # a default, so that a connector without settings lists Connector alone; in typing from 3.13 on
    from typing_extensions import TypeVar

    S_co = TypeVar("S_co", bound=msgspec.Struct, covariant=True, default=msgspec.Struct)
else:
    from typing import TypeVar

    S_co = TypeVar("S_co", bound=msgspec.Struct, covariant=True)


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


class Connector(ConnectorPart, Generic[S_co]):
    """Base of all connectors: identity, settings, and the calls that the worker makes.

    Its parameter is the type of ``self.settings``: ``Connector["MyConnector.Settings"]``; a connector without settings
    lists ``Connector`` alone.

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

    settings: S_co

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """No settings."""

    def __init__(self, settings: S_co, connector_context: ConnectorContext) -> None:
        self.settings = settings
        self.connector_context = connector_context

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "Settings" in cls.__dict__:
            setting_fields(cls.Settings)  # a shared name is an error when the class is made
        _check_parts(cls)
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
    def features(cls, settings: msgspec.Struct) -> ServiceFeatures:
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


def _check_parts(cls: type[Connector]) -> None:
    """Raise TypeError where a mixin lacks its settings, or another mixin that it stands on."""
    for part in cls.__mro__:
        for needed in part.__dict__.get("requires", ()):
            if not issubclass(cls, needed):
                raise TypeError(f"{cls.__name__} lists {part.__name__}, which needs {needed.__name__} beside it")
        kind = part.__dict__.get("part_settings")
        if kind is not None and len(fields := part_fields(cls.Settings, kind)) != 1:
            found = f"it has {len(fields)}: {', '.join(fields)}" if fields else "it has none"
            raise TypeError(
                f"{cls.__name__} lists {part.__name__}, so its Settings must have one field of the type "
                f"{kind.__name__}; {found}"
            )


def _opening_order(cls: type[Connector]) -> list[type]:
    """The classes that have something to open: the bases from right to left, each after those it stands on."""
    order: list[type] = []

    def add(part: type) -> None:
        if part in order:
            return
        for earlier in (*part.__dict__.get("requires", ()), *part.__dict__.get("opens_after", ())):
            if issubclass(cls, earlier):
                add(earlier)
        if "opening" in part.__dict__:
            order.append(part)

    for part in reversed(cls.__mro__):
        add(part)
    return order


C = TypeVar("C", bound=Connector)


@asynccontextmanager
async def open_connector(
    cls: type[C], settings: msgspec.Struct, connector_context: ConnectorContext
) -> AsyncIterator[C]:
    """Make a connector and open what its mixins attach.

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
        for part in _opening_order(cls):
            await stack.enter_async_context(part.__dict__["opening"](connector))
        yield connector
