"""Run large computations on foreign data in a thread, so that one job can't block the others.

Small work runs directly: a thread and a checkpoint would cost more than the work. The limit is
:data:`~emp_trio.sizes.LARGE`.

A thread has a limit, too: Python switches threads only between bytecode instructions, and a single call into C
(decoding a JSON text, encoding a value, searching a text) is one instruction. Work that can be split is split into
pieces of that size; work that can't (JSON) blocks for its whole duration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import msgspec
import trio

from emp_trio.sizes import LARGE

_MANY: Final = 4096  # number of values that take as long as LARGE characters
_PLAIN: Final = frozenset({type(None), bool, int, float})  # each has the same weight
_THREADS: Final = 2  # more would only compete for the interpreter

T = TypeVar("T")
Args = TypeVarTuple("Args")

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("emp_trio.offload")


async def off_loop(size: int, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    """Run ``function(*args)``, in a thread if ``size`` is large.

    Args:
        size: bytes or characters to process.
        function: pure function.

    Returns:
        the result of the function.

    Small work runs without a checkpoint. Cancellation waits for the thread.
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
    """Estimate the work on a JSON-like value in characters; stop counting at the limit.

    Each value counts as some characters: ten thousand numbers are large.
    """
    total, found = 0, [value]
    for item in found:  # grows meanwhile; isinstance, because pattern matching takes three times as long
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
    """Return the total characters of the texts in a JSON-like value; its JSON form has more."""
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
