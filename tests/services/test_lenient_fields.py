"""Every lenient field of every message that a service sends: what does not fit there takes nothing from the others."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest

import emp_trio.services
from emp_trio.protocols.parsing import Lenient, parse

ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**20, "x", "", [], [7], [[None]], {}, {"a": 1})
MARK = get_args(Lenient[str])[1]
REQUIRED: dict[Any, Any] = {str: "x", int: 1}


def lenient(kind: Any) -> bool:
    """Whether a type is marked."""
    return get_origin(kind) is Annotated and MARK in get_args(kind)


def messages() -> list[type[msgspec.Struct]]:
    """All structs with a lenient field."""
    found: dict[str, type[msgspec.Struct]] = {}
    for module in pkgutil.walk_packages(emp_trio.services.__path__, "emp_trio.services."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct):
                found[f"{value.__module__}.{value.__name__}"] = value
    return [kind for kind in found.values() if any(lenient(field.type) for field in msgspec.structs.fields(kind))]


MESSAGES = messages()


def least(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The smallest object that is one."""
    needed = [field for field in msgspec.structs.fields(kind) if field.required]
    return {
        field.encode_name: REQUIRED.get(get_args(field.type)[0] if get_args(field.type) else field.type)
        for field in needed
    }


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 50


@pytest.mark.parametrize(
    "kind", MESSAGES, ids=lambda kind: f"{kind.__module__.removeprefix('emp_trio.services.')}.{kind.__name__}"
)
def test_what_does_not_fit_counts_as_not_there(kind: type[msgspec.Struct]) -> None:
    value = least(kind)
    without = parse(kind, value, "it")
    for field in msgspec.structs.fields(kind):
        if not lenient(field.type):
            continue
        for odd in ODD:
            made = parse(kind, value | {field.encode_name: odd}, "it")
            others = [name for name in kind.__struct_fields__ if name != field.name]
            assert [getattr(made, name) for name in others] == [getattr(without, name) for name in others]


def structs_in(kind: Any) -> set[type[msgspec.Struct]]:
    """The structs that an annotation names."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {kind}
    return {found for argument in get_args(kind) for found in structs_in(argument)}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_message_contains_itself(kind: type[msgspec.Struct]) -> None:
    """How deep an answer goes is its sender's choice; a type without an end would follow it."""
    inside, new = set[type[msgspec.Struct]](), {kind}
    while new:
        new = {
            found for one in new for field in msgspec.structs.fields(one) for found in structs_in(field.type)
        } - inside
        inside |= new
    assert kind not in inside
