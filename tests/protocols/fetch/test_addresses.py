"""Which addresses a job may make a worker talk to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_trio.protocols.fetch.addresses import permitted

PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 223.255.255.255
    2606:4700::1111 2a00:1450:4001:81b::200e ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""
PRIVATE = """
    10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254
    ::1 fc00::1 fdff::1 ::ffff:10.0.0.1 ::ffff:7f00:1 64:ff9b::10.0.0.1 64:ff9b::7f00:1
"""
NEVER = """
    0.0.0.0 0.1.2.3 169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200 192.0.0.192 192.0.0.8 192.0.2.1
    198.51.100.1 203.0.113.1 198.18.0.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: fe80::1 fe80::1%eth0 fd00:ec2::254 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 ff02::1 ff0e::1 fec0::1 ::7f00:1
    ::8.8.8.8 2001:db8::1 2001::1 2002:7f00:1:: 2002:808:808:: 3fff::1 5f00::1 100::1 4000::1 64:ff9b:1::1
    64:ff9b::a9fe:a9fe
    ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:0:127.0.0.1 localhost 2130706433 x
"""


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_are_permitted(address: str) -> None:
    assert permitted(address, private=False)
    assert permitted(address, private=True)


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_ones_only_where_that_is_set(address: str) -> None:
    assert not permitted(address, private=False)
    assert permitted(address, private=True)


@pytest.mark.parametrize("address", ["", *NEVER.split()])
def test_some_never(address: str) -> None:
    assert not permitted(address, private=False)
    assert not permitted(address, private=True)


@given(st.ip_addresses(v=4))
def test_a_wrapped_address_is_judged_as_the_one_inside(address: ipaddress.IPv4Address) -> None:
    for private in (False, True):
        plain = permitted(str(address), private=private)
        assert permitted(f"::ffff:{address}", private=private) == plain
        assert permitted(f"64:ff9b::{address}", private=private) == plain


@given(st.ip_addresses())
def test_what_the_library_calls_private_is_never_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is None and (address.is_private or address.is_multicast or address.is_link_local):
        assert not permitted(str(address), private=False)
