"""Provide ``requests`` sessions whose connections another thread can cut while they are in use."""

from __future__ import annotations

import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry

from emp_trio.assets.stores.blocking import CancelToken


class CuttableSession(requests.Session):
    """A session for one thread at a time. It keeps one connection per host open and never retries.

    Attributes:
        adapter: transport adapter; another session that mounts it is cut together with this one.
        carrier: such a session, kept alive with this one.
        ahead: seconds by which this machine's clock is ahead of the server's, at the last response; 0 if unknown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.carrier: requests.Session | None = None
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._is_cut = False
        self.adapter = _Adapter(self)
        self.mount("http://", self.adapter)
        self.mount("https://", self.adapter)

    def cut(self) -> None:
        """End all waits on the connections with an error, and refuse new connections. Thread-safe.

        Shuts the sockets down, because closing them would not wake the waiting thread.
        """
        with self._lock:
            self._is_cut = True
            for connection in self._connections:
                sock = getattr(connection, "sock", None)
                if sock is not None:
                    with suppress(OSError):  # already disconnected
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections now; requests would leave it to the garbage collector. Not while in use."""
        super().close()
        for connection in list(self._connections):
            connection.close()

    def connected(self, connection: Any) -> None:
        """Register a new connection."""
        with self._lock:
            self._connections.add(connection)
            if self._is_cut:
                connection.close()
                raise ConnectionAbortedError("the call was cancelled")


class SessionPool:
    """Sessions of a store: one per concurrent call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[CuttableSession] = []
        self._closed = False

    @contextmanager
    def session(self, cancel: CancelToken) -> Iterator[CuttableSession]:
        """Lend a session for one call; cancellation of the call cuts it."""
        with self._lock:
            session = self._idle.pop() if self._idle else CuttableSession()
        session.ahead = 0.0
        cancel.on_cancel(session.cut)
        try:
            yield session
        finally:
            cancel.clear()
            with self._lock:
                keep = not (cancel.cancelled or self._closed)
                if keep:
                    self._idle.append(session)
            if not keep:
                session.close()

    def close(self) -> None:
        """Close idle connections now, and those in use when their calls end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


class _Adapter(HTTPAdapter):
    """Creates connections that register with their session, and compares clocks."""

    def __init__(self, session: CuttableSession) -> None:
        self._session = weakref.ref(session)
        super().__init__(
            pool_connections=4,
            pool_maxsize=1,
            max_retries=Retry(total=False, redirect=False, raise_on_status=False),
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _reporting(HTTPConnectionPool, self._session),
            "https": _reporting(HTTPSConnectionPool, self._session),
        }

    def build_response(self, req: Any, resp: Any) -> Any:
        session = self._session()
        with suppress(TypeError, ValueError):  # no date, or an invalid one
            theirs = parsedate_to_datetime(resp.headers.get("date")).timestamp()
            if session is not None:
                session.ahead = time.time() - theirs
        return super().build_response(req, resp)


def _reporting(pool: Any, session: weakref.ref[CuttableSession]) -> Any:
    def connect(self: Any) -> None:
        pool.ConnectionCls.connect(self)
        owner = session()
        if owner is not None:
            owner.connected(self)

    connection = type("ReportingConnection", (pool.ConnectionCls,), {"connect": connect})
    return type("ReportingPool", (pool,), {"ConnectionCls": connection})
