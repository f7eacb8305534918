"""``Fetches``: files from addresses that a job names, without letting the job reach into the worker's own network.

For what a connector does with an input - data URL, base64 or URL, and the check of its type - see
:mod:`emp_trio.services.inputs`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from emp_trio.connector_context import ConnectorContext
from emp_trio.errors import InputUnavailable
from emp_trio.protocols.fetch.settings import Fetched
from emp_trio.retry import backoff

_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 8.0


class Fetches:
    """Gives a connector the verb ``fetch``, with :class:`FetchSettings` in ``self.settings.fetch``."""

    settings: Any
    connector_context: ConnectorContext

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts; nothing is kept open between two files."""
        from emp_trio.protocols.fetch.fetcher import Fetcher  # httpx costs more than all of --help may

        self._fetcher = Fetcher(self.settings.fetch, self.connector_context.user_agent)
        yield

    async def fetch(self, url: str, *, max_bytes: int | None = None, retries: int = 0) -> Fetched:
        """Get the file at ``url``.

        Every host on the way must have permitted addresses (:func:`~emp_trio.protocols.fetch.addresses.permitted`),
        and the connection goes to the very address that was checked: a name that says something else when it is asked
        again gains nothing. Redirects are followed under the same rules. Nothing of the connector's goes along: no
        credentials, no cookies. Proxies of the environment are not used: a proxy would look the name up once more.

        Args:
            url: absolute http or https URL, without user and password.
            max_bytes: most bytes of the file, in place of ``input_max_bytes``.
            retries: how often a server that failed is asked again, 1 s later and then twice as long.

        Raises:
            InvalidJob: the URL is wrong, leads where it must not, to nothing (a client error such as 404), or to a file
                that is empty or larger than ``input_max_bytes``.
            InputUnavailable: its server failed, is out of reach, or took longer than ``input_timeout``; worth a retry.

        Texts of errors name the URL without its query. A cancel closes the connection.
        """
        tried = 0
        while True:
            try:
                fetched: Fetched = await self._fetcher.fetch(url, max_bytes=max_bytes)
                return fetched
            except InputUnavailable:
                tried += 1
                if tried > retries:
                    raise
            await trio.sleep(backoff(tried, base=_PAUSE, cap=_LONGEST_PAUSE, jitter=0.25, random=random.random()))
