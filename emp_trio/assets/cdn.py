"""Wait until a CDN serves an uploaded asset.

Probing starts only after the upload is verified at the origin, because a CDN caches the 404 of an early request. Probes
are HEAD requests, or GETs of one byte once HEAD is refused, with growing pauses.

A CDN may still have cached a wrong response: the 404 of another client's request, or the content of an earlier attempt.
It may keep it for hours. So after a few wrong responses the URL is also tried with a query (``?v=`` and part of the
digest), which is another cache entry; if it serves the asset, that URL is returned. With a CDN that ignores queries in
its cache key, the wait continues until the stage ends.
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
"""Result of a probe: asset served, other content cached, HEAD not allowed, or nothing served yet."""


_DIGESTS: Final = ("x-ms-meta-sha256", "x-amz-meta-sha256", "x-goog-meta-sha256")


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of the asset that the CDN must serve."""

    size: int
    sha256: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """Response of a CDN after redirects; header names are in lower case."""

    status: int
    headers: Mapping[str, str]


class Way(Protocol):
    """Client for a CDN; implemented in :mod:`emp_trio.assets.cdn_ways`."""

    async def ask(self, method: str, url: str, headers: Mapping[str, str]) -> Answered:
        """Send a request without reading the body of the response.

        Raises:
            ServiceError, InputUnavailable: no response; a later request may succeed.
            InvalidJob, AssetError: the address is not allowed.
        """


class WaitLog:
    """Description of the last response, for the error message after a timeout."""

    def __init__(self) -> None:
        self.last = ""


def public_url(base: str, key: str) -> str:
    """Return the URL of a key on a CDN. ``base`` has a scheme and no trailing slash."""
    return f"{base}/{quote(key, safe='/~')}"


def judge(method: str, status: int, headers: Mapping[str, str], expected: Expected) -> Verdict:
    """Classify a response of the CDN. Pure.

    Args:
        headers: headers with lower-case names. Length and digest (metadata of the store that CDNs pass on) are compared
            if present; the length of a compressed response is ignored.
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
    """Probe until the CDN serves ``expected`` at ``url``. Has no timeout of its own; cancellable at any time.

    Args:
        log: receives a description of each response.

    Returns:
        the URL that serves the asset: ``url``, or ``url`` with a query (see the module).

    Raises:
        InvalidJob, AssetError: the address is not allowed.
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
                # Try the plain URL once more: it is preferred, and may only have been late.
                late = await _probe(way, method, url, expected, settings, log) == "right"
                return url if late else fresh
            log.last = said
        await trio.sleep(backoff(tried, base=settings.first_pause, cap=settings.longest_pause, jitter=0.0, random=0.0))


async def _probe(way: Way, method: str, url: str, expected: Expected, settings: CdnSettings, log: WaitLog) -> Verdict:
    """Send one request, limited to ``probe_timeout`` seconds, without reading a body."""
    headers = {"accept-encoding": "identity"} | ({"range": "bytes=0-0"} if method == "GET" else {})
    with trio.move_on_after(settings.probe_timeout):
        try:
            answer = await way.ask(method, url, headers)
        except (ServiceError, InputUnavailable) as error:
            if error.reason != "network_timeout":  # equivalent to this block's own timeout
                log.last = f"{url} can't be reached: {error.message}"
                return "unknown"
        else:
            verdict = judge(method, answer.status, answer.headers, expected)
            other = " with other content" if verdict == "wrong" and answer.status in (200, 206) else ""
            log.last = f"{url} answered {answer.status}{other}"
            return verdict
    log.last = f"{url} did not answer within {settings.probe_timeout:g} s"
    return "unknown"
