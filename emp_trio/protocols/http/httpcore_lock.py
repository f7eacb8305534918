"""The one private attribute of httpcore that is touched.

``httpcore.AsyncHTTP11Connection`` takes a lock around each change of its state, which gives way to other tasks each
time, although a connection that a pool has lent to one request at a time has nobody to be locked against. The hook that
is missing: an argument by which its owner says so. Without the attribute everything works, only slower.
"""

from __future__ import annotations

from contextlib import nullcontext

import httpcore


def without_lock(connection: httpcore.AsyncHTTP11Connection) -> None:
    """Let a new connection, which is used by one request at a time, do without its lock."""
    if hasattr(connection, "_state_lock"):
        connection._state_lock = nullcontext()  # type: ignore[assignment]
