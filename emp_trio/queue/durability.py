"""Detect from its configuration which data a Redis server may lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog

from emp_trio.errors import EmpTrioError, ServerRefused
from emp_trio.queue.port import RedisPort

log = structlog.get_logger("emp_trio.redis")

_ASKED: Final = ("appendfsync", "save")


class Risk(msgspec.Struct, frozen=True):
    """Something that can lose jobs.

    Attributes:
        cause: how the server is set up.
        loses: what that loses, and when.
        hint: how to set it up instead.
    """

    cause: str
    loses: str
    hint: str


def durability_risks(info: Mapping[str, str], config: Mapping[str, str]) -> list[Risk]:
    """What can lose jobs. Pure.

    Args:
        info: fields of INFO's sections persistence and memory; what is missing is not judged.
        config: answer to CONFIG GET of ``appendfsync`` and ``save``; empty where that is not allowed.
    """
    risks = []
    match info.get("aof_enabled"):
        case "0":
            risks.append(_without_aof(info, config))
        case "1":
            risks += _FSYNC.get(config.get("appendfsync", ""), [_UNKNOWN])
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", "0")
    if policy != "noeviction" and limit != "0":
        what = "any job" if policy.startswith("allkeys-") else "results of completed jobs and signs of life of workers"
        risks.append(
            Risk(
                f"maxmemory-policy is {policy}",
                f"{what}, once its memory reaches {info.get('maxmemory_human', limit)}",
                "set maxmemory-policy noeviction: a full server then refuses new jobs and loses none",
            )
        )
    return risks


def _without_aof(info: Mapping[str, str], config: Mapping[str, str]) -> Risk:
    hint = "set appendonly yes and appendfsync always"
    if config.get("save") == "":
        return Risk("it writes nothing to its disk", "all jobs, when it stops", hint)
    changes = info.get("rdb_changes_since_last_save", "?")
    return Risk(
        "it writes snapshots only (appendonly no)",
        f"all that happened since the last snapshot, when it stops: {changes} changes at the moment",
        hint,
    )


_ALWAYS: Final = "set appendfsync always"
_FSYNC: Final[Mapping[str, list[Risk]]] = {
    "always": [],
    "everysec": [
        Risk(
            "appendfsync is everysec",
            "the last second when its machine stops, and up to two when it is killed while its disk is busy",
            _ALWAYS,
        )
    ],
    "no": [Risk("appendfsync is no", "the last half minute or so, when its machine stops", _ALWAYS)],
}
_UNKNOWN: Final = Risk(
    "appendfsync can't be read, because CONFIG is not allowed",
    "up to two seconds, when it is killed or its machine stops, if it is everysec, the default",
    _ALWAYS,
)


async def risks_of(port: RedisPort) -> list[Risk]:
    """Ask a server what it may lose; nothing where it does not say. Raises NotSent and OutcomeUnknown."""
    return durability_risks(*await server_facts(port))


async def server_facts(port: RedisPort) -> tuple[dict[str, str], dict[str, str]]:
    """What INFO and CONFIG say of persistence, memory and replication; empty where that is not allowed.

    Raises:
        NotSent, OutcomeUnknown: there is no connection.
    """
    info: dict[str, str] = {}
    for section in ("persistence", "memory", "replication"):
        info |= _fields(await _or_none(port, "INFO", section))
    answer = await _or_none(port, "CONFIG", "GET", *_ASKED)
    return info, {_text(k): _text(v) for k, v in answer.items()} if isinstance(answer, dict) else {}


async def tell_risks(port: RedisPort) -> None:
    """Log what the server may lose."""
    try:
        risks = await risks_of(port)
    except EmpTrioError as error:
        log.warning("redis.not_asked", error=error.message)
        return
    for risk in risks:
        log.warning("redis.may_lose", cause=risk.cause, loses=risk.loses, hint=risk.hint)


async def _or_none(port: RedisPort, *command: str) -> Any:
    try:
        return await port.call(*command)
    except ServerRefused:  # an ACL, or a service that hides it
        return None


def _fields(answer: Any) -> dict[str, str]:
    lines = _text(answer).splitlines() if answer is not None else []
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
