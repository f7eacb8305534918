"""What a service says, as the struct that describes it. Pure.

A field of a struct is read strictly: another type is an error that names its path, and so is a missing field without a
default; members that the struct does not have are passed over. :data:`Lenient` marks, at the field, where real servers
send something else.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.wire_json import join_halves

T = TypeVar("T")
_LENIENT: Final = "lenient"

Lenient: TypeAlias = Annotated[T, _LENIENT]
"""``Lenient[T]``: what is no ``T`` counts as not there. A field, which needs a default then, gets that; an entry of a
list or a dict is left out."""


def parse(kind: type[T], value: Any, where: str) -> T:
    """A JSON value of a service as a struct; its texts are not copied.

    Args:
        kind: the struct.
        value: as :meth:`~emp_trio.protocols.http.HttpResponse.json` returns it.
        where: what ``value`` is, for the error.

    Raises:
        ServiceError: (response_error, ``invalid_response_format``) it is something else; says what, and where in it.
            ``maybe_started`` is set: the service has done its work.
    """
    try:
        return _convert(kind, value)
    except msgspec.ValidationError as error:
        raise bad_answer(f"{where}: {error}", reason="invalid_response_format") from error


def parse_or_empty(kind: type[T], value: Any) -> T:
    """As :func:`parse`; an empty ``kind``, whose fields must all have defaults, where the value is something else."""
    try:
        return _convert(kind, value)
    except msgspec.ValidationError:
        return kind()


def _convert(kind: type[T], value: Any) -> T:
    try:
        return _leniently(kind, value)
    except UnicodeEncodeError:  # a name has half of a surrogate pair, as they come in streams
        return _leniently(kind, join_halves(value))


def _leniently(kind: type[T], value: Any) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:  # only now looked at member by member, which takes ten times as long
        return msgspec.convert(_without_misfits(kind, value), kind)


def _without_misfits(kind: Any, value: Any) -> Any:
    """``value`` without what does not fit at the lenient places of ``kind``; UNSET where that is all of it."""
    value = _with_fitting_parts(kind, value)
    if _LENIENT in getattr(kind, "__metadata__", ()):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return msgspec.UNSET
    return value


def _with_fitting_parts(kind: Any, value: Any) -> Any:
    for arm in _arms(kind):
        origin, arguments = typing.get_origin(arm), typing.get_args(arm)
        if isinstance(value, list) and origin in (list, tuple):
            parts = [_without_misfits(arguments[0], item) for item in value]
            return [part for part in parts if part is not msgspec.UNSET]
        is_struct = isinstance(arm, type) and issubclass(arm, msgspec.Struct)
        if isinstance(value, dict) and (origin is dict or is_struct):
            kinds = _fields(arm) if is_struct else dict.fromkeys(value, arguments[1])
            members = {name: _without_misfits(kinds.get(name, Any), item) for name, item in value.items()}
            return {name: member for name, member in members.items() if member is not msgspec.UNSET}
    return value


def _arms(kind: Any) -> tuple[Any, ...]:
    """The types that ``kind`` may be."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    """The types of a struct's fields by the names that they have in JSON."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
