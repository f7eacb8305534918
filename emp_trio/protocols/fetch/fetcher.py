"""``Fetcher``: files from addresses that a job names, without letting the job reach into the worker's own network.

For what a connector does with an input - data URL, base64 or URL, and the check of its type - see
:mod:`emp_trio.services.inputs`.
"""

from __future__ import annotations

import random
from typing import Final

import trio

from emp_trio.errors import InputUnavailable
from emp_trio.protocols.fetch.settings import Fetched, FetchSettings
from emp_trio.retry import backoff

_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 8.0


class Fetcher:
    """Gets files from addresses that a job names; nothing is kept open between two files.

    Attributes:
        settings: the limits.
    """

    def __init__(self, settings: FetchSettings, user_agent: str) -> None:
        self.settings = settings
        from emp_trio.protocols.fetch.download import download  # httpx costs more than all of --help may

        self._download = download
        self._headers = {"user-agent": user_agent, "accept": "*/*", "accept-encoding": "gzip"}

    async def fetch(self, url: str, *, max_bytes: int | None = None, retries: int = 0) -> Fetched:
        """Get the file at ``url``.

        Every host on the way must have permitted addresses (:func:`~emp_trio.protocols.fetch.addresses.permitted`),
        and the connection goes to the very address that was checked: a name that says something else when it is asked
        again gains nothing. Redirects are followed under the same rules. No credentials and no
        cookies go along. Proxies of the environment are not used: a proxy would look the name up once more.

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
        limit = self.settings.input_max_bytes if max_bytes is None else max_bytes
        tried = 0
        while True:
            try:
                return await self._download(url, self._headers, self.settings, limit)
            except InputUnavailable:
                tried += 1
                if tried > retries:
                    raise
            await trio.sleep(backoff(tried, base=_PAUSE, cap=_LONGEST_PAUSE, jitter=0.25, random=random.random()))
