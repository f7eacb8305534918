"""Decode a JSON value into structs and report every problem with its full path. Pure.

msgspec stops at the first problem and omits names from its paths, so this module walks the containers and uses msgspec
for scalar values only.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.document import kind_of
from emp_trio.mapping.lint import lint_text
from emp_trio.mapping.paths import child
from emp_trio.mapping.schema import Setting
from emp_trio.mapping.substitution_errors import SubstitutionError
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.secrets import excerpt

S = TypeVar("S", bound=msgspec.Struct)


def decode(value: Any, struct: type[S], path: str, diagnostics: Diagnostics, *, strict: bool) -> S:
    """Decode a JSON value into a struct.

    Args:
        value: JSON value at ``path``.
        struct: struct type to decode into.
        diagnostics: receives every problem, and a warning for each text that is valid but suspicious.
        strict: report unknown fields as errors instead of warnings.

    Returns:
        the struct. A field with an error has its default, a required text "".
    """
    return _Decoder(diagnostics, strict=strict).struct(value, struct, path)


class _Field(msgspec.Struct, frozen=True):
    name: str  # in the file
    attribute: str
    type: Any
    required: bool


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    hints = get_type_hints(struct, include_extras=True)
    return tuple(_Field(f.encode_name, f.name, hints[f.name], f.required) for f in msgspec.structs.fields(struct))


class _Decoder:
    def __init__(self, diagnostics: Diagnostics, *, strict: bool) -> None:
        self.diagnostics = diagnostics
        self.strict = strict

    def struct(self, value: Any, struct: type[S], path: str) -> S:
        if not isinstance(value, dict):
            self.diagnostics.error(path, f"must be an object, not {kind_of(value)}")
            value = None
        fields = _fields(struct)
        made: dict[str, Any] = {}
        for field in fields:
            if value is not None and field.name in value:
                decoded = self.any(value[field.name], field.type, child(path, field.name))
            else:
                decoded = msgspec.UNSET
                if field.required and value is not None:
                    self.diagnostics.error(child(path, field.name), "is missing")
            if decoded is not msgspec.UNSET:
                made[field.attribute] = decoded
            elif field.required:
                made[field.attribute] = () if _container(field.type) is tuple else ""
        names = [field.name for field in fields]
        for name in value or ():
            if name not in names:
                report = self.diagnostics.error if self.strict else self.diagnostics.warning
                report(child(path, name), "unknown field", did_you_mean(name, names))
        return struct(**made)

    def any(self, value: Any, type_: Any, path: str) -> Any:
        """Return the decoded value, or UNSET after an error."""
        container = _container(type_)
        if container is not None and container not in (dict, tuple):
            return self.struct(value, container, path)
        if container is dict:
            return self.object(value, _arguments(type_)[1], path)
        if container is tuple:
            return self.list(value, _arguments(type_)[0], path)
        if isinstance(value, (dict, list)) and type_ in (Setting, Any):  # free-form: only its texts are checked
            return self.object(value, Any, path) if isinstance(value, dict) else [*self.list(value, Any, path)]
        return self.scalar(value, type_, path)

    def object(self, value: Any, type_: Any, path: str) -> Any:
        if not isinstance(value, dict):
            self.diagnostics.error(path, f"must be an object, not {kind_of(value)}")
            return msgspec.UNSET
        made: dict[str, Any] = {}
        for name, item in value.items():
            if "${" in name:
                self.diagnostics.warning(child(path, name), "a reference in a name is not replaced", "only values are")
            decoded = self.any(item, type_, child(path, name))
            if decoded is not msgspec.UNSET:
                made[name] = decoded
        return made

    def list(self, value: Any, type_: Any, path: str) -> Any:
        if not isinstance(value, list):
            self.diagnostics.error(path, f"must be a list, not {kind_of(value)}")
            return msgspec.UNSET
        decoded = [self.any(item, type_, child(path, index)) for index, item in enumerate(value)]
        return tuple(item for item in decoded if item is not msgspec.UNSET)

    def scalar(self, value: Any, type_: Any, path: str) -> Any:
        if isinstance(value, (dict, list)):
            self.diagnostics.error(path, f"must be a single value, not {kind_of(value)}")
            return msgspec.UNSET
        try:
            decoded = msgspec.convert(value, type_)
        except (msgspec.ValidationError, UnicodeError) as error:
            names = _literals(type_)
            if names and isinstance(value, str):
                hint = did_you_mean(value, names) or "one of " + ", ".join(names)
                self.diagnostics.error(path, f"unknown value {excerpt(value, 80)!r}", hint)
            else:
                self.diagnostics.error(path, str(error).split(" - at `$")[0])
            return msgspec.UNSET
        if isinstance(decoded, str):
            try:
                for problem in lint_text(path, decoded):
                    self.diagnostics.add(problem)
            except SubstitutionError as error:
                self.diagnostics.substitution(path, error)
        return decoded


def _arguments(type_: Any) -> tuple[Any, ...]:
    """Return the type arguments of a container, ``Annotated`` or not."""
    return get_args(type_.__origin__ if hasattr(type_, "__metadata__") else type_)


def _container(type_: Any) -> Any:
    """Return ``dict``, ``tuple``, a struct class, or None for a scalar."""
    bare = type_.__origin__ if hasattr(type_, "__metadata__") else type_
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return bare
    origin = get_origin(bare)
    return origin if origin in (dict, tuple) else None


def _literals(type_: Any) -> tuple[str, ...]:
    """Return the values of a ``Literal`` or optional ``Literal``."""
    if get_origin(type_) is Literal:
        return tuple(str(v) for v in get_args(type_))
    return tuple(v for part in get_args(type_) for v in _literals(part))
