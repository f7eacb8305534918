"""Fields of payloads as submitters write them: numbers and truth values also as text, null for what is not set. Pure.

The fleet's clients are forms and JavaScript, whose workers take ``"512"`` for 512 without a word.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import excerpt

T = TypeVar("T")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off", ""})


def number(value: Any) -> Any:
    """The number that a text stands for; anything else as it is, for whoever takes it to judge."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(text := value.strip()):
        return value
    try:
        return int(text)
    except ValueError:
        found = float(text)
    return found if abs(found) <= 1e300 else value


def numbers(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """``values`` with :func:`number` of those members that are meant to be numbers."""
    return {name: number(value) if name in names else value for name, value in values.items()}


def flag(payload: Mapping[str, Any], name: str, *, default: bool, what: str = "payload") -> bool:
    """A member that is true or false.

    Args:
        what: name of ``payload``, for the error.

    Raises:
        InvalidJob: it is neither.
    """
    value = payload.get(name)
    if value is None:
        return default
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) and len(value) < 20 else None
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise InvalidJob(f"{what}.{name} must be true or false, not {_shown(value)}", reason="invalid_format")


def read_fields(kind: type[T], given: Any, what: str) -> T:
    """An object of a payload as a struct.

    Args:
        kind: a struct, all of whose fields have defaults.
        given: the object; members that are null count as absent, and so does the whole of it.
        what: its name, for the error.

    Raises:
        InvalidJob: it is no object, or a member can't be what it must be; the text names it.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InvalidJob(f"{what} must be an object, not {_shown(given)}", reason="invalid_format")
    values = {}
    for name, meant in _meant(kind):  # type: ignore[arg-type]  # of a class that can be anything
        value = given.get(name)
        if value is None or (value == "" and meant != "text"):
            continue
        if meant == "flag":
            values[name] = flag(given, name, default=False, what=what)
        else:
            values[name] = value if meant == "text" else number(value)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InvalidJob(f"{what} is wrong: {error}", reason="invalid_format") from error


@functools.cache
def _meant(kind: type) -> tuple[tuple[str, Literal["text", "flag", "number"]], ...]:
    """What the fields of a struct are meant to be; looking at a struct takes longer than reading one."""
    texts = (str, str | None, Any)
    return tuple(
        (field.encode_name, "text" if field.type in texts else "flag" if field.type is bool else "number")
        for field in msgspec.structs.fields(kind)
    )


def _shown(value: Any) -> str:
    return repr(excerpt(value, 40)) if isinstance(value, str) else type(value).__name__
