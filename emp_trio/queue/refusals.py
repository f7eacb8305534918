"""Classify error replies of the server by their first word (https://valkey.io/topics/protocol). Pure."""

from __future__ import annotations

from typing import Final

from emp_trio.errors import ConfigError, EmpTrioError, ServerRefused

_ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED", "NOREPLICAS"})
_CLUSTER: Final = frozenset({"MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"})

PASSING: Final = _ELSEWHERE | {"OOM", "BUSY", "MISCONF", "TRYAGAIN"}
"""The same command is taken later, by this server or by the one that takes its place."""

CLUSTER: Final = (
    "Redis runs in cluster mode, which emp-trio does not support, because a job's keys must be in one server: "
    "name a server without it (cluster-enabled no), or Sentinels, in the Redis URL"
)
SENTINEL: Final = "the Redis URL names a Sentinel, not a server: write redis+sentinel://host:port,host:port/service"


def refused(text: str) -> ServerRefused:
    """The error of a command that the server answered with the error ``text``."""
    return ServerRefused(f"Redis refused the command: {text}", code=_code(text))


def end_of_connection(text: str) -> EmpTrioError | None:
    """Why a connection on which the server answered ``text`` is of no more use, or None where it is.

    A server that has become a replica, is loading or has lost its replicas keeps its connections, and its name may
    belong to another one now: it has to be looked up, and connected to, anew.
    """
    code = _code(text)
    if code in _ELSEWHERE:
        return ServerRefused(f"Redis can't take commands for now: {text}", code=code)
    if code in _CLUSTER:
        return ConfigError(f"{CLUSTER} (it says: {text})")
    if code == "NOAUTH":
        return ConfigError(f"Redis refuses the login: {text}; check the URL")
    return None


def _code(text: str) -> str:
    first = text.split(" ", 1)[0]
    return first if first.isupper() else "ERR"
