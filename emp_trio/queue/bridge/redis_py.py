"""redis-py's connection: how it is made, and every access to what is private in it.

redis-py connects (TCP, TLS, unix socket), logs in and chooses the database. Then ``Replies`` takes its transport over.
redis-py 8.1 has no public way for what is done here:

=====================  =================================================  ==========================================
private                why                                                the public hook that it would be
=====================  =================================================  ==========================================
``_writer`` (sending)  ``writelines`` of CPython 3.12 and 3.13.0-9 lacks  ``Connection(writer=...)``, or a release of
                       the guard against a lost connection, and takes     redis-py that sends with ``write``
                       the whole loop down (cpython issue 136234)         (redis-py issue 4287)
``_writer.transport``  replies are handed over as they are read: one      ``Connection.transport``
                       await and more per reply cost a job 0.1 ms
``_reader.at_eof``     a connection may end between login and take-over   ``Connection.is_connected`` that knows of it
=====================  =================================================  ==========================================
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from emp_trio.queue.port import RedisSettings


class _SafeSend:
    """Sends by ``write`` instead of ``writelines``."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        connection = cast(Any, self)
        writer = connection._writer
        if writer is None or writer.transport.is_closing():
            raise redis.ConnectionError("the connection is closing")
        try:
            writer.write(command if isinstance(command, bytes) else b"".join(command))
            await writer.drain()
        except OSError as error:
            await connection.disconnect(nowait=True)
            raise redis.ConnectionError(str(error)) from error


class _Tcp(_SafeSend, aioredis.Connection): ...


class _Tls(_SafeSend, SSLConnection): ...


class _Unix(_SafeSend, UnixDomainSocketConnection): ...


def make_connection(settings: RedisSettings) -> Any:
    """A connection that is not connected yet, and that sends nothing twice by itself.

    Raises:
        ValueError: the URL can't be read; the error may quote a part of it.
        redis.RedisError, TypeError: the URL has an option that redis-py does not take.
    """
    url = settings.url.reveal()
    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", None)
    cls = _Tls if kind is SSLConnection else _Unix if kind is UnixDomainSocketConnection else _Tcp
    if cls is not _Unix:
        options.setdefault("socket_keepalive", True)
        if "db" not in options and urlsplit(url).path.strip("/"):
            raise ValueError("the database is not a number")
    return cls(
        **options,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=settings.connect_timeout,
        client_name="emp-trio",
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


def transport_of(connection: Any) -> asyncio.Transport:
    """The transport of a connection that has logged in and waits for no reply.

    Raises:
        redis.ConnectionError: the server has closed it already.
    """
    if connection._writer is None or connection._reader.at_eof():
        raise redis.ConnectionError("the server closed the connection")
    return cast(asyncio.Transport, connection._writer.transport)


async def disconnect(connection: Any) -> None:
    """Close a connection, in whichever state it is."""
    writer = connection._writer
    await connection.disconnect(nowait=True)
    if writer is not None and isinstance(connection, _Tls):
        writer.transport.abort()  # a TLS goodbye would outlive the loop
