"""How a connector declares its settings, and the names they may be given by.

A connector has one frozen struct ``Settings`` whose fields are values (scalars; lists and objects in the mapping only)
or the settings struct of a protocol mixin::

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        api_key: Annotated[Secret, Env("${OPENAI_API_KEY}")]
        http: Annotated[HttpSettings, Env(base_url="${OPENAI_BASE_URL:-https://api.openai.com/v1}")]
        polling: PollingSettings = PollingSettings()

The mapping's ``api_config`` is flat: a key goes to the scalar, or to the part, that has a field of that name.
Order of precedence for a field: an environment variable that its expression names and that is set and not blank, then
``api_config``, then the expression's own default, then the struct's default.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

P = TypeVar("P", bound=msgspec.Struct)


class Env:
    """Environment expressions of a settings field: ``Env("${NAME:-default}")`` for a scalar, ``Env(field="${NAME}")``
    for the fields of a part."""

    __slots__ = ("expression", "fields")

    def __init__(self, expression: str | None = None, /, **fields: str) -> None:
        if (expression is None) == (not fields):
            raise TypeError("Env takes either one expression (for a scalar) or one per field (for a part)")
        self.expression = expression
        self.fields = fields


class SettingField(msgspec.Struct, frozen=True, kw_only=True):
    """One flat setting of a connector.

    Attributes:
        name: flat name, as in ``api_config``.
        part: the field of ``Settings`` that holds it, or None for a scalar of ``Settings`` itself.
        type: the annotated type, without ``Env``.
        expression: its environment expression, or None.
        default: the struct's default, or ``msgspec.UNSET`` where a value must be given.
    """

    name: str
    part: str | None
    type: Any
    expression: str | None
    default: Any


def setting_fields(settings: type[msgspec.Struct]) -> tuple[SettingField, ...]:
    """The flat settings of a connector's ``Settings``.

    Raises:
        TypeError: a name that two parts share, or an Env that names no field of its part.
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
    """An annotation as (annotation without Env, the Env in it)."""
    if get_origin(hint) is not Annotated:
        return hint, None
    base, *extras = get_args(hint)
    env = next((e for e in extras if isinstance(e, Env)), None)
    rest = tuple(e for e in extras if e is not env)
    return (Annotated[(base, *rest)] if rest else base), env
