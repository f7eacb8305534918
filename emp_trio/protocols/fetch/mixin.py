"""``Fetches``: gives a connector a :class:`~emp_trio.protocols.fetch.fetcher.Fetcher`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from emp_trio.protocols.fetch.settings import FetchSettings
from emp_trio.protocols.part import ConnectorPart, PartSettings

if TYPE_CHECKING:
    from emp_trio.protocols.fetch.fetcher import Fetcher


class Fetches(ConnectorPart):
    """Attaches ``self.fetcher``, with the :class:`FetchSettings` among the connector's settings."""

    part_settings: ClassVar[PartSettings] = FetchSettings
    fetcher: Fetcher

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        from emp_trio.protocols.fetch.fetcher import Fetcher  # httpx costs more than all of --help may

        self.fetcher = Fetcher(self.settings_of(FetchSettings), self.connector_context.user_agent)
        yield
