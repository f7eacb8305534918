"""Large work on foreign data leaves the event loop, so that no job keeps the others waiting.

Small work stays where it is: a thread costs more than it, and a checkpoint more would be one too many on the way of
every job. The limit is :data:`~emp_trio.sizes.LARGE`.

What a thread can't help: Python runs one thread at a time, and hands over between two steps of its own only. A single
call into C (decoding one JSON text, encoding one value, a search in one text) is one step. So what can be cut is cut
into pieces of that size; what can't (JSON) stands still for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import msgspec
import trio

from emp_trio.sizes import LARGE

_MANY: Final = 4096  # values that are as much work as LARGE characters
_PLAIN: Final = frozenset({type(None), bool, int, float})  # of which each weighs the same
_THREADS: Final = 2  # more would only take the interpreter from each other

T = TypeVar("T")
Args = TypeVarTuple("Args")

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("emp_trio.offload")


async def off_loop(size: int, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """``function(*args)``, in a thread where there is much to do.

    Args:
        size: bytes or characters that are worked on.
        function: a pure function.

    Returns:
        what it returns.

    Small work is done at once, without a checkpoint. A cancel waits for the thread.
    """
    if size <= LARGE:
        return function(*args)
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(function, *args, limiter=limiter)


def weight(value: Any) -> int:
    """How much work a JSON-like value is, in characters of its texts; counting ends where it is large.

    Each value in it counts for some characters, too: ten thousand numbers are large.
    """
    total, found = 0, [value]
    for item in found:  # which grows meanwhile. On the way of every job: pattern matching takes three times as long
        kind = type(item)
        if kind is str or kind is bytes:
            total += len(item)
            continue
        if kind in _PLAIN:
            continue
        if kind is dict:
            found += item.values()
            found += item
        elif kind is list or kind is tuple:
            found += item
        elif isinstance(item, msgspec.Struct):
            found += msgspec.structs.astuple(item)
        if len(found) > _MANY:
            break
    return total + len(found) * (LARGE // _MANY)


def characters(value: Any) -> int:
    """All characters of the texts in a JSON-like value: less than it has as JSON."""
    total, left = 0, [value]
    while left:
        match left.pop():
            case str() as text:
                total += len(text)
            case dict() as members:
                left += members.values()
                left += members
            case list() | tuple() as items:
                left += items
            case msgspec.Struct() as struct:
                left += (getattr(struct, name) for name in struct.__struct_fields__)
    return total
