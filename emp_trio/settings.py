"""Declaration of a connector's settings, and their names in the mapping and the environment.

A connector has a frozen struct ``Settings``. Its fields are values (scalars; lists and objects only from the mapping)
or settings structs of protocol mixins::

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        api_key: Annotated[Secret, Env("${OPENAI_API_KEY}")]
        http: Annotated[HttpSettings, Env(base_url="${OPENAI_BASE_URL:-https://api.openai.com/v1}")]
        polling: PollingSettings = PollingSettings()

The mapping's ``api_config`` is flat: a key sets the field of that name, in ``Settings`` or in one of its parts.
Precedence: an environment variable of the field's expression that is set and not blank, then ``api_config``, then the
default of the expression, then the default of the struct.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

P = TypeVar("P", bound=msgspec.Struct)


class Env:
    """Annotation with environment expressions: ``Env("${NAME:-default}")`` for a value, ``Env(field="${NAME}")`` for a
    part."""

    __slots__ = ("expression", "fields")

    def __init__(self, expression: str | None = None, /, **fields: str) -> None:
        if (expression is None) == (not fields):
            raise TypeError("Env takes either one expression (for a scalar) or one per field (for a part)")
        self.expression = expression
        self.fields = fields


class SettingField(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of a connector.

    Attributes:
        name: name in ``api_config``.
        part: field of ``Settings`` whose struct has the setting, or None for ``Settings`` itself.
        type: annotated type, without ``Env``.
        expression: environment expression, or None.
        default: default of the struct, or ``msgspec.UNSET`` if the setting is required.
    """

    name: str
    part: str | None
    type: Any
    expression: str | None
    default: Any


def setting_fields(settings: type[msgspec.Struct]) -> tuple[SettingField, ...]:
    """Return the settings of a connector's ``Settings``, including those of its parts.

    Raises:
        TypeError: two parts share a name, or an Env names an unknown field.
    """
    found: dict[str, SettingField] = {}
    for name, hint, default in _struct_fields(settings):
        base, env = _split(hint)
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            expressions = dict(env.fields) if env is not None else {}
            for sub_name, sub_hint, sub_default in _struct_fields(base):
                sub_base, sub_env = _split(sub_hint)
                given = getattr(default, sub_name) if isinstance(default, base) else sub_default
                expression = expressions.pop(sub_name, sub_env.expression if sub_env else None)
                _add(
                    found,
                    settings,
                    SettingField(name=sub_name, part=name, type=sub_base, expression=expression, default=given),
                )
            if expressions:
                raise TypeError(f"{settings.__qualname__}.{name}: Env names unknown fields {sorted(expressions)}")
        else:
            _add(
                found,
                settings,
                SettingField(
                    name=name, part=None, type=base, expression=env.expression if env else None, default=default
                ),
            )
    return tuple(found.values())


def find_part(settings: msgspec.Struct, part: type[P]) -> P | None:
    """The settings of a part of a connector, found by their type; None where there are none."""
    values = (getattr(settings, name) for name in settings.__struct_fields__)
    return next((value for value in values if isinstance(value, part)), None)


def part_of(settings: msgspec.Struct, part: type[P]) -> P:
    """:func:`find_part`, where there must be one. Raises TypeError where there is none."""
    found = find_part(settings, part)
    if found is None:
        raise TypeError(f"{type(settings).__qualname__} has no field of the type {part.__name__}")
    return found


def part_fields(settings: type[msgspec.Struct], part: type[msgspec.Struct]) -> list[str]:
    """Names of the fields of a connector's ``Settings`` that hold the settings of a part."""
    bases = ((name, _split(hint)[0]) for name, hint, _ in _struct_fields(settings))
    return [name for name, base in bases if isinstance(base, type) and issubclass(base, part)]


def _add(found: dict[str, SettingField], settings: type, field: SettingField) -> None:
    if field.name in found:
        raise TypeError(
            f"{settings.__qualname__}: the setting {field.name!r} belongs both to "
            f"{found[field.name].part or 'Settings'!r} and to {field.part or 'Settings'!r}; rename one"
        )
    found[field.name] = field


def _struct_fields(struct: type[msgspec.Struct]) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    result: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(struct):
        default: Any = field.default
        if default is msgspec.NODEFAULT:
            default = msgspec.UNSET if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        result.append((field.name, hints[field.name], default))
    return result


def _split(hint: Any) -> tuple[Any, Env | None]:
    """Split an annotation into the annotation without Env, and the Env."""
    if get_origin(hint) is not Annotated:
        return hint, None
    base, *extras = get_args(hint)
    env = next((e for e in extras if isinstance(e, Env)), None)
    rest = tuple(e for e in extras if e is not env)
    return (Annotated[(base, *rest)] if rest else base), env
