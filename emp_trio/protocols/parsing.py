"""Parse a service's message into the struct that describes it. Pure.

A field of a struct is read strictly: another type is an error that names its path, and so is a missing field without a
default; members that the struct does not have are passed over. :data:`Lenient` marks, at the field, where real servers
send something else.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec

from emp_trio.protocols.http.errors import bad_answer
from emp_trio.protocols.wire_json import join_halves

T = TypeVar("T")
_LENIENT: Final = "lenient"

Lenient: TypeAlias = Annotated[T, _LENIENT]
"""``Lenient[T]``: what is no ``T`` counts as not there. A field, which needs a default then, gets that; an entry of a
list or a dict is left out."""

NoObject: TypeAlias = str | list[Any] | bool | int | float | None
"""Whatever JSON value is no object: ``Struct | NoObject`` takes all there are."""


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
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError):
        try:
            return _leniently(kind, value)
        except msgspec.ValidationError as error:
            raise bad_answer(f"{where}: {error}", reason="invalid_response_format") from error


def parse_or_empty(kind: type[T], value: Any) -> T:
    """As :func:`parse`; an empty ``kind``, whose fields must all have defaults, where the value is something else."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError):
        if not isinstance(value, dict | list):  # most often None
            return kind()
        try:
            return _leniently(kind, value)
        except msgspec.ValidationError:
            return kind()


def _leniently(kind: type[T], value: Any) -> T:
    """``value`` without what is not of its type at a lenient place. Looked for only where it does not fit as it is,
    which takes ten times as long."""
    try:
        return msgspec.convert(_without_misfits(kind, value), kind)
    except UnicodeEncodeError:  # a name has half of a surrogate pair, as they come in streams
        return msgspec.convert(_without_misfits(kind, join_halves(value)), kind)


def _without_misfits(kind: Any, value: Any) -> Any:
    """``value`` with all that fits at the lenient places of ``kind``; UNSET where nothing does."""
    if kind is None:  # of a member that is passed over
        return value
    shape = _shape(kind)
    if isinstance(value, dict) and (shape.members or shape.others is not None):
        fitting = {name: _without_misfits(shape.members.get(name, shape.others), part) for name, part in value.items()}
        value = {name: part for name, part in fitting.items() if part is not msgspec.UNSET}
    elif isinstance(value, list) and shape.items is not None:
        items = [_without_misfits(shape.items, part) for part in value]
        value = [part for part in items if part is not msgspec.UNSET]
    if shape.holder is not None:
        try:
            msgspec.convert({"value": value}, shape.holder)
        except msgspec.ValidationError:
            return msgspec.UNSET
    return value


class _Shape(msgspec.Struct, frozen=True):
    """Where there is something to look into: the members of a struct, those of a dict (``others``), items of a list.

    ``holder`` is a struct whose ``value`` is of a lenient type: msgspec knows structs by heart, and makes itself any
    other type anew each time that it is asked.
    """

    holder: Any = None
    members: dict[str, Any] = {}
    others: Any = None
    items: Any = None


@functools.cache
def _shape(kind: Any) -> _Shape:
    lenient = _LENIENT in getattr(kind, "__metadata__", ())
    holder = msgspec.defstruct("Holder", [("value", kind)]) if lenient else None
    members, others, items = {}, None, None
    for arm in _arms(kind):
        origin, arguments = typing.get_origin(arm), typing.get_args(arm)
        if origin is dict and _shape(arguments[1]) != _Shape():
            others = arguments[1]
        elif origin in (list, tuple) and _shape(arguments[0]) != _Shape():  # a million numbers are left alone
            items = arguments[0]
        elif isinstance(arm, type) and issubclass(arm, msgspec.Struct) and not arm.__struct_config__.array_like:
            members = {field.encode_name: field.type for field in msgspec.structs.fields(arm)}
    return _Shape(holder, members, others, items)


def _arms(kind: Any) -> tuple[Any, ...]:
    """The types that ``kind`` may be."""
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
