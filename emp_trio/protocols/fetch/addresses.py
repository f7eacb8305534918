"""Decide which network addresses a job may make a worker connect to. Pure."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import Final

_METADATA: Final = frozenset(  # of Alibaba, Azure, Amazon, Google, Oracle and Scaleway; the others' are link-local
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
    )
)
_PRIVATE: Final = tuple(
    ipaddress.ip_network(block)
    for block in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )
)
_UNICAST: Final = ipaddress.ip_network("2000::/3")
# What older versions of Python take for public: protocol assignments, 6to4 and Teredo, examples.
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def literal_address(host: str) -> str | None:
    """The address that a host names by itself, in whatever form a system takes it: ``127.1``, ``2130706433``,
    ``0x7f.1``, ``0177.0.0.1``, an IPv6 address with a zone or without, and ``localhost`` with all below it; None for a
    name that has to be looked up.

    Args:
        host: in ASCII, without brackets.
    """
    plain = host.removesuffix(".").lower()
    if plain == "localhost" or plain.endswith((".localhost", ".localdomain")):
        return "127.0.0.1"
    for form in (host, plain, plain.replace("%25", "%", 1)):
        with suppress(ValueError):
            return str(ipaddress.ip_address(form))
    with suppress(OSError, ValueError):
        # Not ipaddress: this is what connect() and getaddrinfo() make of a number, blanks and rubbish after it aside.
        return socket.inet_ntoa(socket.inet_aton(plain)) if " " not in plain else None
    return None


def permitted(address: str, *, private: bool) -> bool:
    """Whether an address may be connected to.

    Args:
        address: an IPv4 or IPv6 address in its usual form. One that wraps an IPv4 address is judged by that.
        private: whether private networks, carrier networks (100.64.0.0/10) and loopback are allowed as well. Link-local
            addresses, those of the providers' metadata services, multicast and everything unassigned never are.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return permitted(str(found.ipv4_mapped), private=private)
        if found in _NAT64:
            return permitted(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)), private=private)
    if found in _METADATA:
        return False
    if any(found in block for block in _PRIVATE):
        return private
    if any(found in block for block in _NOT_PUBLIC):
        return False
    return found in _UNICAST if found.version == 6 else found.is_global and not found.is_multicast
