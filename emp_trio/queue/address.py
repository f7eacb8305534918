"""Parse the Redis URL: one server, or Sentinels that know the current master."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import msgspec
from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from emp_trio.errors import ConfigError
from emp_trio.secrets import Secret

_SENTINEL_PORT: Final = 26379
_UNREADABLE: Final = (
    "the Redis URL can't be read: it must be redis://user:password@host:port/database, rediss:// for TLS, "
    "unix://path, or redis+sentinel://user:password@host:port,host:port/service/database (rediss+sentinel:// for TLS); "
    "in user and password, write / : @ # ? % and spaces as %2F and so on"
)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, or what Sentinels call it.

    Attributes:
        transport: how it is reached; the Sentinels in the same way.
        options: arguments of redis-py's connection: host, port, path, db, username, password and those of TLS. Host and
            port are left out where Sentinels are to be asked for them.
        sentinels: (host, port) of each Sentinel; none where the server is named itself.
        service: what the Sentinels call it.
        login: arguments of a connection to a Sentinel: username and password, where they want one.
    """

    transport: Literal["tcp", "tls", "unix"]
    options: Mapping[str, Any]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    login: Mapping[str, Any] = {}

    @property
    def tls(self) -> dict[str, Any]:
        """Those of the options that are about TLS."""
        return {name: value for name, value in self.options.items() if name.startswith("ssl_")}


def read_address(url: Secret) -> Address:
    """Read a Redis URL.

    ``redis+sentinel://user:password@host:port,host:port/service/database`` names Sentinels; user, password and database
    are the server's. ``sentinel_username`` and ``sentinel_password`` in the query are for the Sentinels themselves.
    ``rediss+sentinel://`` means TLS, with both.

    Raises:
        ConfigError: it can't be read. Its text shows nothing of the URL, which may hold a password anywhere.
    """
    text = url.reveal()
    try:
        scheme, plus, rest = text.partition("+sentinel://")
        return _with_sentinels(scheme, rest) if plus else _plain(text)
    except ValueError:
        raise ConfigError(_UNREADABLE) from None


def _plain(url: str) -> Address:
    options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", None)
    if kind is UnixDomainSocketConnection:
        return Address(transport="unix", options=options)
    options.setdefault("socket_keepalive", True)
    if "db" not in options and urlsplit(url).path.strip("/"):
        raise ValueError("the database is not a number")
    return Address(transport="tls" if kind is SSLConnection else "tcp", options=options)


def _with_sentinels(scheme: str, rest: str) -> Address:
    parts = urlsplit(f"//{rest}")
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    query = parse_qs(parts.query)
    own = {name: query.pop(f"sentinel_{name}")[0] for name in ("username", "password") if f"sentinel_{name}" in query}
    if not service or scheme not in ("redis", "rediss"):
        raise ValueError("no service is named")
    options = urlencode(query, doseq=True)
    server = _plain(f"{scheme}://{login}{at}{_HERE}/{quote(database, safe='')}?{options}")
    return Address(
        transport=server.transport,
        options={name: value for name, value in server.options.items() if name not in ("host", "port")},
        sentinels=tuple(map(_sentinel, hosts.split(","))),
        service=unquote(service),
        login=own,
    )


_HERE: Final = "server.invalid"  # stands for the server that the Sentinels will name


def _sentinel(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel without a host")
    return parts.hostname, parts.port or _SENTINEL_PORT
