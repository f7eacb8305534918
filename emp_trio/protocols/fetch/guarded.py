"""The guarded way to an address that a job names: read it, look it up, check it, connect to what was checked.

Everything that a job can make this machine talk to goes through here: input files, and the CDN that its ``ctx`` names.
One parser reads the URL that is both checked and connected to; a name is looked up once, all of its addresses must be
permitted (:func:`~emp_trio.protocols.fetch.addresses.permitted`), and the connection goes to one of these: a name that
says something else when it is asked again gains nothing. Whoever follows a redirect comes here again. Proxies of the
environment are not used: a proxy would look the name up once more.

What is refused is told apart from nothing: the error of a private address, of a name that leads to one and of a name
that does not exist are the same, and none says what was found.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx
import structlog
import trio

from emp_trio.errors import InputUnavailable, InvalidJob
from emp_trio.protocols.fetch.addresses import literal_address, permitted
from emp_trio.protocols.http.attempts import RequestTrace
from emp_trio.protocols.http.transport import Reply, translated
from emp_trio.tls import tls_context

log = structlog.get_logger(__name__)

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_ONE: Final = httpx.Limits(max_connections=1, max_keepalive_connections=0)


class AddressProblem(InvalidJob):
    """A URL that a job must not name. The text begins with a verb: the caller puts in front what it is about."""


class AddressRefused(AddressProblem):
    """Where a URL leads is closed. The text says the rule, and nothing of what is at the address."""


class NameUnresolved(InputUnavailable):
    """The name of a host can't be resolved for now."""

    default_reason = "dns_resolution"


def parsed_url(text: str) -> httpx.URL:
    """A URL as the one parser sees it whose result is both checked and connected to.

    Raises:
        AddressProblem: it is not an absolute http or https URL, or it carries a user or a password.
    """
    if not text.isprintable() or any(letter in text for letter in " \\"):
        raise AddressProblem("is not a URL: it has a blank, a backslash or a control character")
    try:
        url = httpx.URL(text)
        host = url.host  # in Unicode, where its Punycode can be read
    except (httpx.InvalidURL, UnicodeError) as error:
        raise AddressProblem("can't be read as a URL") from error
    if url.scheme not in ("http", "https") or not host or not 0 < url_port(url) < 2**16:
        raise AddressProblem("is not an http or https URL")
    if url.userinfo:
        raise AddressProblem("carries a user name or a password: give a URL that needs neither")
    return url


def url_port(url: httpx.URL) -> int:
    """The port of a URL, stated or usual."""
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80


def check_literal(url: httpx.URL, *, private: bool) -> None:
    """Refuse, without asking anybody, a host that is a number or means this machine by itself.

    Raises:
        AddressRefused: its text is the one of :func:`addresses_of`.
    """
    address = literal_address(url.raw_host.decode("ascii"))
    if address is not None and not permitted(address, private=private):
        raise _refused(url, [address], private=private)


async def addresses_of(url: httpx.URL, *, private: bool) -> list[str]:
    """The addresses of a URL's host, all of them permitted: a single bad one says that the host is not to be trusted.

    Args:
        private: as for :func:`~emp_trio.protocols.fetch.addresses.permitted`.

    Raises:
        AddressRefused: the host has no address, or one that is not permitted.
        NameUnresolved: the name can't be resolved for now.
    """
    check_literal(url, private=private)
    try:
        found = await trio.socket.getaddrinfo(url.raw_host.decode("ascii"), url_port(url), type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            raise _refused(url, [], private=private) from error
        raise NameUnresolved(f"the name of the host can't be resolved: {error.strerror}") from error
    except (UnicodeError, ValueError, OSError) as error:
        raise _refused(url, [], private=private) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    bad = [address for address in addresses if not permitted(address, private=private)]
    if bad or not addresses:
        raise _refused(url, bad, private=private)
    return addresses


@asynccontextmanager
async def guarded_reply(
    method: str, url: httpx.URL, headers: Mapping[str, str], *, private: bool, trace: RequestTrace
) -> AsyncIterator[Reply]:
    """Ask the host of a URL, at an address that has been checked; redirects are the caller's.

    Args:
        method: GET or HEAD.
        headers: what is sent besides the host, and nothing else.
        private: as for :func:`addresses_of`.
        trace: is told how far it got.

    Yields:
        the answer, its body unread; its connection is closed with the block, also by a cancel.

    Raises:
        AddressRefused, NameUnresolved: as :func:`addresses_of`.
        ServiceError: no connection, no TLS, or no answer.
    """
    trace.phase = "looking up the host"
    addresses = await addresses_of(url, private=private)
    tls = tls_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx.AsyncHTTPTransport(verify=tls, limits=_ONE) as transport:
        reply = await _sent(transport, method, url, headers, addresses, trace)
        try:
            yield reply
        finally:
            await reply.aclose()


async def _sent(
    transport: httpx.AsyncHTTPTransport,
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str],
    addresses: list[str],
    trace: RequestTrace,
) -> Reply:
    """Ask the first address that can be connected to; each gets an equal share of the time that is left."""
    sent = {**headers, "host": url.netloc.decode("ascii")}
    with translated(trace):
        for left in range(len(addresses), 0, -1):
            share = (trio.current_effective_deadline() - trio.current_time()) / left
            request = httpx.Request(
                method,
                url.copy_with(host=addresses[-left]),
                headers=sent,
                extensions={
                    "timeout": {"connect": max(share, 0.0)},
                    "trace": trace.trace,
                    "sni_hostname": url.raw_host.decode("ascii"),  # and what the certificate must be for
                },
            )
            try:
                return Reply(await transport.handle_async_request(request), trace)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if left == 1:
                    raise
    raise AssertionError("no address to ask")


def _refused(url: httpx.URL, addresses: list[str], *, private: bool) -> AddressRefused:
    log.warning("address.refused", host=url.host, addresses=addresses)  # for the operator alone
    allowed = "public ones and those of private networks" if private else "public ones"
    return AddressRefused(f"leads to an address that a job must not name, or to none: only {allowed} are allowed")
