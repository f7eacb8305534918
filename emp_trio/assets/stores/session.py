"""A ``requests`` session whose connection can be cut from another thread while it is in use."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry


class CuttableSession(requests.Session):
    """A session for one thread at a time. It keeps one connection open between calls and repeats nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_cut = False
        adapter = _Adapter(self)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def cut(self) -> None:
        """End what the connection is waiting for, with an error, and refuse new connections. Safe from any thread.

        Closing the socket instead would leave the other thread waiting; a shut down one wakes it.
        """
        with self._lock:
            self._is_cut = True
            sock = getattr(self._connection, "sock", None)
            if sock is not None:
                with suppress(OSError):  # not connected any more: nothing waits on it
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection now; the library alone leaves that to the garbage collector. Not while it is in use."""
        super().close()
        if self._connection is not None:
            self._connection.close()

    def connected(self, connection: Any) -> None:
        """Called by the connection when it has been made."""
        with self._lock:
            self._connection = connection
            if self._is_cut:
                connection.close()
                raise ConnectionAbortedError("the call was cancelled")


class _Adapter(HTTPAdapter):
    """Makes connections that report to their session."""

    def __init__(self, session: CuttableSession) -> None:
        self._session = session
        super().__init__(
            pool_connections=1,
            pool_maxsize=1,
            max_retries=Retry(total=False, redirect=False, raise_on_status=False),
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _reporting(HTTPConnectionPool, self._session),
            "https": _reporting(HTTPSConnectionPool, self._session),
        }


def _reporting(pool: Any, session: CuttableSession) -> Any:
    def connect(self: Any) -> None:
        pool.ConnectionCls.connect(self)
        session.connected(self)

    connection = type("ReportingConnection", (pool.ConnectionCls,), {"connect": connect})
    return type("ReportingPool", (pool,), {"ConnectionCls": connection})
