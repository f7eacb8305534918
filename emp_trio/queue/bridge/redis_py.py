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
from collections.abc import Mapping
from typing import Any, Final, cast

import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig


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


_CLASSES: Final[Mapping[str, Any]] = {"tcp": _Tcp, "tls": _Tls, "unix": _Unix}


def make_connection(transport: str, options: Mapping[str, Any], connect_timeout: float) -> Any:
    """A connection that is not connected yet, and that sends nothing twice by itself.

    Args:
        transport, options: as in :class:`~emp_trio.queue.address.Address`.
        connect_timeout: seconds for the connection, without the login.

    Raises:
        redis.RedisError, TypeError: there is an option that redis-py does not take.
    """
    return _CLASSES[transport](
        **options,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=connect_timeout,
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
