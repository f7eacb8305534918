"""``Limits``: gives a connector a :class:`RateLimiter`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from emp_trio.protocols.part import ConnectorPart, PartSettings
from emp_trio.protocols.rate_limiter import LimitsSettings, RateLimiter

__all__ = ["Limits", "LimitsSettings", "RateLimiter"]


class Limits(ConnectorPart):
    """Attaches ``self.limiter``, with the :class:`LimitsSettings` among the connector's settings.

    ``Http`` heeds it too: a call that begins work waits until no pause is on, and a 429 with a wait begins one.
    """

    part_settings: ClassVar[PartSettings] = LimitsSettings
    limiter: RateLimiter

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.limiter = RateLimiter(self.settings_of(LimitsSettings))
        yield
