"""``ConnectorPart``: base of the mixins, each of which attaches an object to a connector."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, TypeVar

import msgspec

from emp_trio.connector_context import ConnectorContext
from emp_trio.protocols.rate_limiter import RateLimiter
from emp_trio.settings import part_of

PartSettings: TypeAlias = type[msgspec.Struct] | None

P = TypeVar("P", bound=msgspec.Struct)


class ConnectorPart:
    """A mixin that attaches an object to a connector. The object does the work and knows nothing of the connector.

    A mixin that has something to open has an async context manager method ``opening``, which sets the attribute; it is
    entered once, when the connector starts, and must not call ``super()``.

    Class attributes:
        part_settings: settings struct of which the connector's ``Settings`` must have one field; None for none.
        requires: mixins that must be among the connector's bases, and are opened before this one.
        opens_after: mixins that are opened before this one where they are among the bases.

    Attributes:
        settings: those of the connector.
        connector_context: what the worker gives it.
        limiter: that of the mixin ``Limits``; None without it.
    """

    part_settings: ClassVar[PartSettings] = None
    requires: ClassVar[tuple[type[ConnectorPart], ...]] = ()
    opens_after: ClassVar[tuple[type[ConnectorPart], ...]] = ()

    settings: msgspec.Struct
    connector_context: ConnectorContext
    limiter: RateLimiter | None = None

    def settings_of(self, part: type[P]) -> P:
        """The settings of a part, found by their type, whatever the field is called.

        Raises:
            TypeError: there are none; for ``part_settings`` that is said when the class is made.
        """
        return part_of(self.settings, part)
