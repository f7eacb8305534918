"""``Fetches``: gives a connector a :class:`Fetcher`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from emp_trio.protocols.fetch.fetcher import Fetcher
from emp_trio.protocols.fetch.settings import FetchSettings
from emp_trio.protocols.part import ConnectorPart, PartSettings


class Fetches(ConnectorPart):
    """Attaches ``self.fetcher``, with the :class:`FetchSettings` among the connector's settings."""

    part_settings: ClassVar[PartSettings] = FetchSettings
    fetcher: Fetcher

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.fetcher = Fetcher(self.settings_of(FetchSettings), self.connector_context.user_agent)
        yield
