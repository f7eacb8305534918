"""``Fetcher``: files from addresses that a job names, without letting the job reach into the worker's own network.

For what a connector does with an input - data URL, base64 or URL, and the check of its type - see
:mod:`emp_trio.services.inputs`.
"""

from __future__ import annotations

import random
import time
from typing import Final

import httpx
import trio

from emp_trio.errors import InputUnavailable, InvalidJob, ServiceError
from emp_trio.protocols.fetch.guarded import AddressProblem, NameUnresolved, guarded_reply, parsed_url
from emp_trio.protocols.fetch.settings import Fetched, FetchSettings
from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.transport import Reply
from emp_trio.protocols.urls import redirected, shown_url
from emp_trio.retry import backoff, parse_retry_after

_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 8.0
_LATER: Final = frozenset({408, 425, 429})


class Fetcher:
    """Gets files from addresses that a job names; nothing is kept open between two files.

    Attributes:
        settings: the limits.
    """

    def __init__(self, settings: FetchSettings, user_agent: str) -> None:
        self.settings = settings
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
        tried = 0
        while True:
            try:
                return await self._fetch_once(url, self.settings.input_max_bytes if max_bytes is None else max_bytes)
            except InputUnavailable:
                tried += 1
                if tried > retries:
                    raise
            await trio.sleep(backoff(tried, base=_PAUSE, cap=_LONGEST_PAUSE, jitter=0.25, random=random.random()))

    async def _fetch_once(self, url: str, limit: int) -> Fetched:
        seconds = self.settings.input_timeout
        trace = RequestTrace()
        trace.phase = "looking up the host"
        place = url
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            for _ in range(self.settings.input_max_redirects + 1):
                found = await self._hop(place, url, trace, limit)
                if isinstance(found, Fetched):
                    return found
                place = found
            raise InvalidJob(f"{shown_url(url)} is redirected more than {self.settings.input_max_redirects} times")
        assert scope.cancelled_caught
        raise InputUnavailable(
            f"{shown_url(url)} did not arrive within {seconds:.3g} s, ended while {trace.phase}",
            type="timeout",
            reason="network_timeout",
        )

    async def _hop(self, text: str, first: str, trace: RequestTrace, limit: int) -> Fetched | str:
        """The file at a URL, or where it says that the file is. What is refused on the way is not named: the submitter
        knows the first URL, and of all others nothing."""
        private = self.settings.input_allow_private
        try:
            url = parsed_url(text)
            async with guarded_reply("GET", url, self._headers, private=private, trace=trace) as reply:
                return await self._read(text, reply, limit)
        except AddressProblem as error:
            way = shown_url(first) if text == first else f"{shown_url(first)} is redirected to a place that"
            raise InvalidJob(f"{way} {error.message}") from error
        except (ServiceError, NameUnresolved) as error:  # a fault of the network
            raise InputUnavailable(
                f"{shown_url(text)}: {error.message}", type=error.type, reason=error.reason, retry=error.retry
            ) from error

    async def _read(self, url: str, reply: Reply, limit: int) -> Fetched | str:
        location = reply.headers.get("location")
        if reply.status in (301, 302, 303, 307, 308) and location is not None:
            return _following(url, reply.status, location)
        if reply.status != 200:
            raise _bad_status(url, reply)
        declared = reply.headers.get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0
        data = bytearray()
        if size <= limit:
            async for piece in reply:
                data += piece
                size = len(data)
                if size > limit:
                    break
        if size > limit:
            raise InvalidJob(f"{shown_url(url)} is larger than the {limit} bytes that an input may have")
        if not data:
            raise InvalidJob(f"{shown_url(url)} is an empty file", reason="invalid_format")
        return Fetched(data=bytes(data), name=httpx.URL(url).path.rpartition("/")[2])


def _following(url: str, status: int, location: str) -> str:
    try:
        following = redirected("GET", url, status=status, location=location)
    except ValueError as error:
        raise InvalidJob(f"{shown_url(url)} is redirected to what is not a URL") from error
    if following is None:
        raise InvalidJob(f"{shown_url(url)} is redirected from https to a place that is not https")
    return following[1]


def _bad_status(url: str, reply: Reply) -> InvalidJob | InputUnavailable:
    if reply.status < 500 and reply.status not in _LATER:
        return InvalidJob(f"{shown_url(url)} can't be fetched: its server answered {reply.status}")
    return InputUnavailable(
        f"{shown_url(url)} can't be fetched for now: its server answered {reply.status}",
        type="service_error",
        reason="service_unavailable",
        retry_after=parse_retry_after(reply.headers, now=time.time()),
    )
