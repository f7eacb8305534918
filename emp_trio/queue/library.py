"""The Redis function library ``emp_trio``: one text made of the Lua files beside this module, versioned by content."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from emp_trio.errors import ConfigError, ServerRefused
from emp_trio.queue.port import RedisPort
from emp_trio.queue.refusals import PASSING

NAME: Final = "emp_trio"
# a file may use what files before it define
_FILES: Final = (
    "ids",
    "record",
    "common",
    "match",
    "failing",
    "lapse",
    "claim",
    "lease",
    "settle",
    "reap",
    "orphans",
    "client",
    "process",
    "fleet",
    "durable",
)


def source() -> tuple[str, str]:
    """The library's text and its version, the first 16 hex digits of the SHA-256 of its files."""
    folder = resources.files("emp_trio.queue") / "functions"
    body = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in _FILES)
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return f"#!lua name={NAME}\n" + body.replace("@VERSION@", version), version


async def ensure(port: RedisPort) -> bool:
    """Make sure that the server has this version; returns whether it had to be loaded.

    REPLACE swaps the library in one step: there is no moment without it, and no other library is touched.

    Raises:
        ConfigError: the server has no functions (before Redis 7.0) or does not let this user load them.
    """
    text, version = source()
    try:
        if await port.call("FCALL", f"{NAME}_version", 0) == version.encode():
            return False
    except ServerRefused as refusal:
        if refusal.code == "NOPERM":
            raise ConfigError(f"{refusal.message}; the user needs FCALL and FUNCTION LOAD") from refusal
    await load(port, text)
    return True


async def load(port: RedisPort, text: str) -> None:
    """Load the library in place of any other version of it. Raises ConfigError as :func:`ensure` does."""
    try:
        await port.call("FUNCTION", "LOAD", "REPLACE", text)
    except ServerRefused as refusal:
        hint = "emp-trio needs Valkey, or Redis 7.0 or later, and a user that may call FUNCTION LOAD"
        if refusal.code in PASSING:
            raise
        raise ConfigError(f"the function library can't be loaded: {refusal.message}; {hint}") from refusal
