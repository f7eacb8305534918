"""``Http``: gives a connector an :class:`HttpClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from emp_trio.protocols.http.client import HttpClient, open_http_client
from emp_trio.protocols.http.hooks import HttpHooks
from emp_trio.protocols.http.settings import HttpSettings
from emp_trio.protocols.limits import Limits
from emp_trio.protocols.part import ConnectorPart, PartSettings


class Http(HttpHooks, ConnectorPart):
    """Attaches ``self.http``, with the :class:`HttpSettings` among the connector's settings; asks the connector's
    hooks (:class:`HttpHooks`)."""

    part_settings: ClassVar[PartSettings] = HttpSettings
    opens_after = (Limits,)
    http: HttpClient

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts: opens the pool, and closes it at the end."""
        settings, user_agent = self.settings_of(HttpSettings), self.connector_context.user_agent
        async with open_http_client(settings, user_agent=user_agent, hooks=self, limiter=self.limiter) as self.http:
            yield
