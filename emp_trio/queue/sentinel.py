"""Asking Sentinels which server is the master. Blocks: for a thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from emp_trio.errors import ConfigError, NotSent
from emp_trio.queue.address import Address
from emp_trio.secrets import Redactor

_LIMIT: Final = 1.0  # seconds for one Sentinel: the next one may answer, and a fail-over is waited for meanwhile


class _Unusable(Exception):
    """A Sentinel answers, and can't be used."""


def locate(address: Address, redactor: Redactor) -> Mapping[str, Any]:
    """Arguments of redis-py's connection to the server that ``address`` means now.

    Sentinels are asked in their order, each for a second at most, until one names the master; it may be about to lose
    that office, or to come to it.

    Raises:
        NotSent: no Sentinel could be asked.
        ConfigError: all of them answered, and none knows the service, or lets us in.
    """
    if not address.sentinels:
        return address.options
    problems: list[str] = []
    unusable = 0
    for host, port in address.sentinels:
        try:
            found = _ask(address, host, port)
        except _Unusable as error:
            unusable += 1
            problems.append(f"{host}:{port} {error}")
        except (redis.RedisError, OSError) as error:
            problems.append(f"{host}:{port}: {redactor.text(str(error)) or type(error).__name__}")
        else:
            return {**address.options, "host": found[0], "port": found[1]}
    said = "; ".join(problems)
    if unusable == len(problems):
        raise ConfigError(f"no Sentinel can be used: {said}; check the Redis URL")
    raise NotSent(f"no connection to a Sentinel that knows the master: {said}")


def sentinel_options(address: Address, host: str, port: int) -> dict[str, Any]:
    """Arguments of redis-py's connection to a Sentinel."""
    return {"host": host, "port": port, "socket_keepalive": True, **address.login, **address.tls}


def _ask(address: Address, host: str, port: int) -> tuple[str, int]:
    cls: Any = SSLConnection if address.transport == "tls" else Connection
    connection = cls(
        **sentinel_options(address, host, port),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=_LIMIT,
        socket_connect_timeout=_LIMIT,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    try:
        connection.connect()
        connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
        reply = connection.read_response()
    except redis.AuthenticationError as error:
        raise _Unusable(f"refuses the login ({error}), which sentinel_username and sentinel_password give") from None
    except redis.ResponseError as error:
        raise _Unusable(f"is no Sentinel, or refuses us: {error}") from None
    finally:
        connection.disconnect()
    if reply is None:
        raise _Unusable(f"knows no service {address.service!r}")
    return reply[0].decode(), int(reply[1])
