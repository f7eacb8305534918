"""Places in JSON values, written as JSON pointers (RFC 6901). Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

POINTER_PATTERN = r"^([^/~]*|(/([^~/]|~[01])*)+)\Z"
"""What :func:`steps` reads, for settings."""


_NO_ESCAPE: Final = re.compile(r"~(?![01])")


def steps(pointer: str) -> tuple[str, ...]:
    """The names and numbers of a pointer, from the outside in.

    Args:
        pointer: ``/data/0/url``; ``~1`` stands for a slash and ``~0`` for a tilde in a name. Empty text points to the
            whole value. A name without any slash is that member of the whole, as the fleet's ``..._STATUS_FIELD`` is.

    Raises:
        ValueError: it is none of these.
    """
    if not pointer:
        return ()
    if "/" not in pointer and "~" not in pointer:
        return (pointer,)
    if not pointer.startswith("/"):
        raise ValueError(f"the pointer {pointer!r} must begin with a slash (or be one name)")
    found = pointer[1:].split("/")
    for name in found:
        if _NO_ESCAPE.search(name):
            raise ValueError(f"the pointer {pointer!r} has a ~ that is followed by neither 0 nor 1")
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in found)


def pointed(value: Any, pointer: str) -> Any:
    """What ``pointer`` points to in a JSON value, or ``msgspec.UNSET`` where it points to nowhere.

    Raises:
        ValueError: as :func:`steps`.
    """
    for step in steps(pointer):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and _is_index(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return msgspec.UNSET
    return value


def _is_index(step: str) -> bool:
    """Whether it is an array index: digits without leading zeros (RFC 6901, section 4)."""
    return step.isascii() and step.isdigit() and len(step) < 10 and (step == "0" or step[0] != "0")
