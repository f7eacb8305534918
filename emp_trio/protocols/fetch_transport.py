"""The guarded way to one file: look up, check, connect to what was checked, read no more than allowed."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Final

import httpx
import structlog
import trio

from emp_trio.errors import InputUnavailable, InvalidJob, ServiceError
from emp_trio.protocols.addresses import permitted
from emp_trio.protocols.fetch import Fetched, FetchSettings
from emp_trio.protocols.http_operation import Trail
from emp_trio.protocols.http_transport import Reply, translated
from emp_trio.protocols.urls import redirected, shown_url
from emp_trio.retry import parse_retry_after
from emp_trio.tls import tls_context

log = structlog.get_logger(__name__)

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_LATER: Final = frozenset({408, 425, 429})


class Fetcher:
    """Fetches one file at a time for each caller; keeps nothing."""

    def __init__(self, settings: FetchSettings, user_agent: str) -> None:
        self._settings = settings
        self._headers = {"user-agent": user_agent, "accept": "*/*", "accept-encoding": "gzip"}

    async def fetch(self, url: str) -> Fetched:
        """See :meth:`emp_trio.protocols.fetch.Fetches.fetch`."""
        seconds = self._settings.input_timeout
        trail = Trail()
        trail.phase = "looking up the host"
        place = url
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            for _ in range(self._settings.input_max_redirects + 1):
                found = await self._hop(place, trail)
                if isinstance(found, Fetched):
                    return found
                place = found
            raise InvalidJob(
                f"{shown_url(url)} is redirected more than {self._settings.input_max_redirects} times, "
                f"last to {shown_url(place)}"
            )
        assert scope.cancelled_caught
        raise InputUnavailable(
            f"{shown_url(url)} did not arrive within {seconds:.3g} s, ended while {trail.phase}",
            type="timeout",
            reason="network_timeout",
        )

    async def _hop(self, text: str, trail: Trail) -> Fetched | str:
        """The file at a URL, or where it says that the file is."""
        url = _parsed(text)
        addresses = await self._addresses(url, trail)
        try:
            tls = tls_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            async with httpx.AsyncHTTPTransport(verify=tls, limits=_ONE) as transport:
                reply = await self._send(transport, url, addresses, trail)
                try:
                    return await self._read(text, reply)
                finally:
                    await reply.aclose()
        except ServiceError as error:  # what translated() makes of a fault of the network
            raise InputUnavailable(
                f"{shown_url(text)}: {error.message}", type=error.type, reason=error.reason, retry=error.retry
            ) from error

    async def _addresses(self, url: httpx.URL, trail: Trail) -> list[str]:
        """The addresses of the URL's host, all of them checked: a single bad one says that the host is not to be
        trusted. A number in an odd form (``2130706433``, ``0x7f.1``) becomes an ordinary address here."""
        trail.phase = "looking up the host"
        where = shown_url(str(url))
        try:
            found = await trio.socket.getaddrinfo(url.raw_host.decode(), _port(url), type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_NAME:
                raise InvalidJob(f"{where}: there is no host of that name") from error
            raise InputUnavailable(
                f"{where}: the name of the host can't be resolved: {error.strerror}",
                type="network_error",
                reason="dns_resolution",
            ) from error
        except (UnicodeError, ValueError, OSError) as error:
            raise InvalidJob(f"{where}: the host can't be looked up") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        refused = [a for a in addresses if not permitted(a, private=self._settings.input_allow_private)]
        if refused or not addresses:
            log.warning("input.address_refused", host=url.host, addresses=refused)
            raise InvalidJob(
                f"{where} leads to an address that inputs must not come from: only public ones are allowed"
                + (" and those of private networks" if self._settings.input_allow_private else "")
            )
        return addresses

    async def _send(
        self, transport: httpx.AsyncHTTPTransport, url: httpx.URL, addresses: list[str], trail: Trail
    ) -> Reply:
        """Ask the first address that can be connected to; each gets an equal share of the time that is left."""
        headers = self._headers | {"host": url.netloc.decode("ascii")}
        with translated(trail):
            for left in range(len(addresses), 0, -1):
                share = (trio.current_effective_deadline() - trio.current_time()) / left
                request = httpx.Request(
                    "GET",
                    url.copy_with(host=addresses[-left]),
                    headers=headers,
                    extensions={
                        "timeout": {"connect": max(share, 0.0)},
                        "trace": trail.trace,
                        "sni_hostname": url.raw_host.decode(),  # and what the certificate must be for
                    },
                )
                try:
                    return Reply(await transport.handle_async_request(request), trail)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if left == 1:
                        raise
        raise AssertionError("no address to ask")

    async def _read(self, url: str, reply: Reply) -> Fetched | str:
        location = reply.headers.get("location")
        if reply.status in (301, 302, 303, 307, 308) and location is not None:
            return _following(url, reply.status, location)
        if reply.status != 200:
            raise _bad_status(url, reply)
        limit = self._settings.input_max_bytes
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


_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=0)


def _parsed(text: str) -> httpx.URL:
    """The URL as the one parser sees it whose result is both checked and connected to."""
    if not text.isprintable() or any(letter in text for letter in " \\"):
        raise InvalidJob(f"{shown_url(text)} is not a URL: it has a blank, a backslash or a control character")
    try:
        url = httpx.URL(text)
        host = url.host  # in Unicode, where its Punycode can be read
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidJob(f"{shown_url(text)} can't be read as a URL") from error
    if url.scheme not in ("http", "https") or not host or not 0 < _port(url) < 2**16:
        raise InvalidJob(f"{shown_url(text)} is not an http or https URL")
    if url.userinfo:
        raise InvalidJob(f"{shown_url(text)} carries a user name or a password: give a URL that needs neither")
    return url


def _port(url: httpx.URL) -> int:
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80


def _following(url: str, status: int, location: str) -> str:
    try:
        following = redirected("GET", url, status=status, location=location)
    except ValueError as error:
        raise InvalidJob(f"{shown_url(url)} is redirected to {shown_url(location)}, which is not a URL") from error
    if following is None:
        raise InvalidJob(f"{shown_url(url)} is redirected from https to {shown_url(location)}, which is not https")
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
