"""Decode the mapping file strictly: reject duplicate names, NaN and unbounded nesting. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Final

from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.paths import ROOT, child

LARGEST: Final = 8 * 2**20
"""Maximum file size in bytes; the file of a large fleet has 50 KB."""

DEEPEST: Final = 64
"""Maximum nesting of objects and lists; the format itself needs six levels."""


class _Object(dict[str, Any]):
    """JSON object that records its duplicate names."""

    twice: tuple[str, ...] = ()


def parse(data: bytes, source: str, diagnostics: Diagnostics) -> dict[str, Any]:
    """Decode a mapping file.

    Args:
        data: content of the file, at most :data:`LARGEST` bytes.
        source: name of the file, for messages.
        diagnostics: receives duplicate names and values that are not JSON, with their paths.

    Returns:
        the decoded object.

    Raises:
        ConfigError: the file is too large, not UTF-8, not JSON, nested too deeply, or not an object.
    """
    if len(data) > LARGEST:
        raise _unreadable(source, f"larger than {LARGEST >> 20} MiB", "this is not a service mapping")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(source, f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    if not text.strip():
        raise _unreadable(source, "empty", 'a mapping is a JSON object with "workers" and "services"')
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise _unreadable(source, "nested too deeply", f"{DEEPEST} levels are allowed") from None
    except json.JSONDecodeError as error:
        raise _unreadable(source, f"not JSON: {error.msg} at line {error.lineno} column {error.colno}", "") from None
    if not isinstance(value, dict):
        raise _unreadable(source, f"not a JSON object but {kind_of(value)}", "")
    _inspect(value, source, diagnostics)
    return value


def kind_of(value: Any) -> str:
    """Return the JSON type of a value in words, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object(pairs)
    if len(result) < len(pairs):
        result.twice = tuple(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return result


def _integer(digits: str) -> int | float:
    # Python rejects integers of thousands of digits; infinity makes _inspect report it with its path.
    return int(digits) if len(digits) <= 30 else math.inf


def _inspect(value: Any, source: str, diagnostics: Diagnostics) -> None:
    """Check the whole document. Uses its own stack, because the document may be deeper than Python's."""
    stack: list[tuple[Any, str, int]] = [(value, ROOT, 1)]
    while stack:
        item, path, depth = stack.pop()
        if depth > DEEPEST and isinstance(item, (dict, list)):
            raise _unreadable(source, f"nested more than {DEEPEST} levels deep", f"at {path}")
        match item:
            case _Object():
                for name in item.twice:
                    diagnostics.error(child(path, name), "this name stands twice in its object", "remove one")
                for name in item:
                    if not _encodable(name):
                        diagnostics.error(path, f"the name {name!r} holds half of a surrogate pair")
                stack += [(v, child(path, k), depth + 1) for k, v in reversed(item.items())]
            case list():
                stack += [(v, child(path, i), depth + 1) for i, v in reversed(list(enumerate(item)))]
            case float() if not math.isfinite(item):
                diagnostics.error(path, "NaN, Infinity and numbers too large to be read are not allowed")
            case str() if not _encodable(item):
                diagnostics.error(
                    path, "the text holds half of a surrogate pair", r"a \ud... escape needs its other half"
                )


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(source: str, reason: str, hint: str) -> ConfigError:
    problem = Problem(path=ROOT, message=f"{source} is {reason}", hint=hint)
    return ConfigError("the mapping can't be read", problems=[problem])
