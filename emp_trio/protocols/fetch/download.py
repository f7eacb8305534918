"""One file from an address that a job names, over the guarded way, and no more of it than is allowed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import httpx
import trio

from emp_trio.errors import InputUnavailable, InvalidJob, ServiceError
from emp_trio.protocols.fetch.guarded import AddressProblem, NameUnresolved, guarded_reply, parsed_url
from emp_trio.protocols.fetch.settings import Fetched, FetchSettings
from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.transport import Reply
from emp_trio.protocols.urls import redirected, shown_url
from emp_trio.retry import parse_retry_after

_LATER: Final = frozenset({408, 425, 429})


async def download(url: str, headers: Mapping[str, str], settings: FetchSettings, limit: int) -> Fetched:
    """The file at ``url``, of at most ``limit`` bytes, tried once. Errors are those of ``Fetcher.fetch``."""
    seconds = settings.input_timeout
    trace = RequestTrace()
    trace.phase = "looking up the host"
    place = url
    with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
        for _ in range(settings.input_max_redirects + 1):
            found = await _hop(place, url, trace, headers, limit, private=settings.input_allow_private)
            if isinstance(found, Fetched):
                return found
            place = found
        raise InvalidJob(f"{shown_url(url)} is redirected more than {settings.input_max_redirects} times")
    assert scope.cancelled_caught
    raise InputUnavailable(
        f"{shown_url(url)} did not arrive within {seconds:.3g} s, ended while {trace.phase}",
        type="timeout",
        reason="network_timeout",
    )


async def _hop(
    text: str, first: str, trace: RequestTrace, headers: Mapping[str, str], limit: int, *, private: bool
) -> Fetched | str:
    """The file at a URL, or where it says that the file is. What is refused on the way is not named: the submitter
    knows the first URL, and of all others nothing."""
    try:
        url = parsed_url(text)
        async with guarded_reply("GET", url, headers, private=private, trace=trace) as reply:
            return await _read(text, reply, limit)
    except AddressProblem as error:
        way = shown_url(first) if text == first else f"{shown_url(first)} is redirected to a place that"
        raise InvalidJob(f"{way} {error.message}") from error
    except (ServiceError, NameUnresolved) as error:  # a fault of the network
        raise InputUnavailable(
            f"{shown_url(text)}: {error.message}", type=error.type, reason=error.reason, retry=error.retry
        ) from error


async def _read(url: str, reply: Reply, limit: int) -> Fetched | str:
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
