"""Redis URLs as values."""

from __future__ import annotations

import pytest

from emp_trio.errors import ConfigError
from emp_trio.queue.address import read_address
from emp_trio.secrets import Secret
from emp_trio.secrets.credentials import url_secrets


@pytest.mark.parametrize(
    ("url", "transport", "options"),
    [
        ("redis://h", "tcp", {"host": "h", "socket_keepalive": True}),
        ("redis://h:1/3", "tcp", {"host": "h", "port": 1, "db": 3, "socket_keepalive": True}),
        ("redis://u:p%2F@h?db=4&socket_keepalive=no", "tcp",
         {"host": "h", "db": 4, "username": "u", "password": "p/", "socket_keepalive": False}),
        ("rediss://h?ssl_ca_certs=/x", "tls", {"host": "h", "ssl_ca_certs": "/x", "socket_keepalive": True}),
        ("unix:///s?db=2", "unix", {"path": "/s", "db": 2}),
    ],
)  # fmt: skip
def test_one_server(url: str, transport: str, options: dict[str, object]) -> None:
    found = read_address(Secret(url))
    assert (found.transport, found.options, found.sentinels) == (transport, options, ())


def test_sentinels() -> None:
    found = read_address(
        Secret("redis+sentinel://u:p%2F@a:1,b,[::1]:3/my%20jobs/5?socket_keepalive=no&sentinel_password=q%2F")
    )
    assert found.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert found.service == "my jobs"
    assert found.options == {"username": "u", "password": "p/", "db": 5, "socket_keepalive": False}
    assert found.login == {"password": "q/"}
    assert found.transport == "tcp"


def test_sentinels_by_tls() -> None:
    found = read_address(Secret("rediss+sentinel://a/s?ssl_ca_certs=/x&sentinel_username=u&sentinel_password=p&db=7"))
    assert found.transport == "tls"
    assert found.options == {"ssl_ca_certs": "/x", "db": 7, "socket_keepalive": True}
    assert found.tls == {"ssl_ca_certs": "/x"}
    assert found.login == {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel://a:1/",
        "redis+sentinel:///s",
        "redis+sentinel://a:geheim/s",
        "redis+sentinel://a:1,/s",
        "redis+sentinel://a:1/s/geheim",
        "redis+sentinel://:geheim/nis@a:1/s",
        "unix+sentinel://a/s",
        "http+sentinel://a/s",
        "redis+cluster://geheim",
        "redis://127.0.0.1:geheim",
    ],
)
def test_what_cannot_be_read_is_said_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\+sentinel://user:password@host:port,host:port/service") as caught:
        read_address(Secret(url))
    assert "geheim" not in caught.value.message
    assert caught.value.__suppress_context__


def test_every_password_of_a_url_is_a_secret() -> None:
    found = url_secrets(Secret("redis+sentinel://u:p%2Fw@a,b/s?sentinel_password=q%2Fw&ssl_password=key&db=1"))
    assert {"p/w", "p%2Fw", "q/w", "q%2Fw", "key"} <= {secret.reveal() for secret in found}
    assert "1" not in {secret.reveal() for secret in found}
    assert url_secrets(Secret("redis://h?password=only-here"))
