"""The wait until a CDN serves what the store already has.

Probes begin when the origin has been checked, never before: a CDN asked too early remembers the 404. They are HEAD
requests, and ranged GETs of one byte from the moment on at which HEAD is refused; pauses between them grow.

A CDN may all the same hold a wrong answer: a 404 from somebody's earlier request, or an earlier attempt's content. It
would keep it for minutes or hours, while the work is done and paid for. So after a few wrong answers the same address
is also tried with a query (``?v=`` and a piece of the content's digest), which is another entry of the cache; if that
one is right, it is the address handed out. CDNs that leave queries out of their cache keys don't answer better to it,
and the wait goes on until the stage ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Protocol
from urllib.parse import quote

import msgspec
import trio

from emp_trio.assets.config import CdnSettings
from emp_trio.errors import InputUnavailable, ServiceError
from emp_trio.retry import backoff

Verdict = Literal["right", "wrong", "refused", "unknown"]
"""What a probe says: served as it should be; the cache holds something else; HEAD is not allowed; nothing yet."""


_DIGESTS: Final = ("x-ms-meta-sha256", "x-amz-meta-sha256", "x-goog-meta-sha256")


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the CDN is to serve."""

    size: int
    sha256: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a CDN answered, redirects followed; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]


class Way(Protocol):
    """A way to a CDN: :mod:`emp_trio.assets.cdn_ways` has those that there are."""

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answered:
        """Make a request and read no body.

        Raises:
            ServiceError, InputUnavailable: no answer; another time there may be one.
            InvalidJob, AssetError: the address is not to be asked.
        """


class WaitLog:
    """The last answer of whatever is being waited for, in words, for the error when time is up."""

    def __init__(self) -> None:
        self.last = ""


def public_url(base: str, key: str) -> str:
    """The address of a key behind a CDN base that has a scheme and no slash at its end."""
    return f"{base}/{quote(key, safe='/~')}"


def judge(method: str, status: int, headers: Mapping[str, str], expected: Expected) -> Verdict:
    """What an answer of the CDN says. Pure.

    Args:
        headers: looked up in lower case. Length and digest (from the store's metadata, which CDNs pass on) are compared
            where they are given; a compressed answer has a length of its own.
    """
    if status in (200, 206):
        plain = headers.get("content-encoding", "identity") in ("", "identity")
        total = headers.get("content-length")
        if status == 206:
            total = headers.get("content-range", "").rpartition("/")[2]
        if plain and total and total.isascii() and total.isdigit() and int(total) != expected.size:
            return "wrong"
        return "right" if all(headers.get(name, expected.sha256) == expected.sha256 for name in _DIGESTS) else "wrong"
    if status in (404, 410):
        return "wrong"
    return "refused" if method == "HEAD" and status in (400, 403, 405, 501) else "unknown"


async def wait_for_cdn(way: Way, url: str, expected: Expected, settings: CdnSettings, log: WaitLog) -> str:
    """Probe until the CDN serves ``expected`` at ``url``; the caller's deadline bounds it. Cancellable at any time.

    Args:
        log: gets what the last probe said.

    Returns:
        the address that is served rightly: ``url``, or ``url`` with a query (see above).

    Raises:
        InvalidJob, AssetError: as :meth:`Way.ask`.
    """
    tried = wrong = 0
    method = "HEAD"
    log.last = f"{url} has not answered yet"
    while True:
        tried += 1
        verdict = await _probe(way, method, url, expected, settings, log)
        if verdict == "refused":
            method = "GET"
            verdict = await _probe(way, method, url, expected, settings, log)
        if verdict == "right":
            return url
        wrong += verdict == "wrong"
        if verdict == "wrong" and wrong >= settings.stale_after:
            fresh, said = f"{url}?v={expected.sha256[:12]}", log.last
            if await _probe(way, method, fresh, expected, settings, log) == "right":
                # Once more: it may only have been late, and the plain address is the better one.
                late = await _probe(way, method, url, expected, settings, log) == "right"
                return url if late else fresh
            log.last = said
        await trio.sleep(backoff(tried, base=settings.first_pause, cap=settings.longest_pause, jitter=0.0, random=0.0))


async def _probe(way: Way, method: str, url: str, expected: Expected, settings: CdnSettings, log: WaitLog) -> Verdict:
    """One request, in at most ``probe_timeout`` seconds; a body is never read."""
    headers = {"accept-encoding": "identity"} | ({"range": "bytes=0-0"} if method == "GET" else {})
    with trio.move_on_after(settings.probe_timeout):
        try:
            answer = await way.ask(method, url, headers)
        except (ServiceError, InputUnavailable) as error:
            if error.reason != "network_timeout":  # that is the same as the end of this block's own time
                log.last = f"{url} can't be reached: {error.message}"
                return "unknown"
        else:
            verdict = judge(method, answer.status, answer.headers, expected)
            other = " with other content" if verdict == "wrong" and answer.status in (200, 206) else ""
            log.last = f"{url} answered {answer.status}{other}"
            return verdict
    log.last = f"{url} did not answer within {settings.probe_timeout:g} s"
    return "unknown"
