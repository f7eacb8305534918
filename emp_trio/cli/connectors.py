"""``emp-trio connectors``."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from emp_trio.cli.output import FAILED, OK, print_json, print_problem, print_table
from emp_trio.errors import ConfigError

if TYPE_CHECKING:
    from emp_trio.services.registry import ConnectorInfo
    from emp_trio.settings import SettingField


def connectors(name: str | None = None, /, *, json: bool = False) -> int:
    """List the installed connectors and what they can do.

    With a name: the settings of that connector, which api_config of the
    mapping or the environment may give.

    For example:

        emp-trio connectors
        emp-trio connectors OpenAIResponsesConnector

    Args:
        name: One connector.
        json: Print one JSON object.
    """
    from emp_trio.services.registry import connectors as installed

    found = {info.name: info for info in installed()}
    if name is None:
        return _list(list(found.values()), json)
    if name not in found:
        from emp_trio.mapping.suggestions import did_you_mean

        hint = did_you_mean(name, found) or "see: emp-trio connectors"
        raise ConfigError(f"there is no connector {name!r}; {hint}")
    return _show(found[name], json)


def _list(found: list[ConnectorInfo], json: bool) -> int:
    if json:
        print_json({"connectors": found})
    else:
        usable = [info for info in found if not info.problem]
        print_table(
            ("CONNECTOR", "SERVICE TYPE", "ITS SERVICE OFFERS", "FROM"),
            [(info.name, info.service_type, _abilities(info), info.origin) for info in usable],
        )
    for info in found:
        if info.problem:
            print_problem(info.problem, label="warning")
    return FAILED if any(info.problem for info in found) else OK


def _show(info: ConnectorInfo, json: bool) -> int:
    if info.problem:
        raise ConfigError(info.problem)
    from emp_trio.services.registry import find_connector
    from emp_trio.settings import setting_fields

    cls = find_connector(info.name)
    settings = [_setting(field) for field in setting_fields(cls.Settings)] if cls is not None else []
    if json:
        print_json({"connector": info, "settings": settings})
        return OK
    print(f"{info.name} ({info.place}, {info.origin})\nIts service offers: {_abilities(info)}")
    lacks = info.service_features.lacks() if info.service_features is not None else {}
    print("".join(f"It has no {name.replace('_', ' ')}: {so}\n" for name, so in lacks.items()))
    print_table(
        ("SETTING", "TYPE", "ENVIRONMENT", "DEFAULT"),
        [(s["name"], s["type"], s["environment"] or "", _default(s)) for s in settings],
    )
    return OK


def _abilities(info: ConnectorInfo) -> str:
    import msgspec

    offered = msgspec.structs.asdict(info.service_features) if info.service_features is not None else {}
    return ", ".join(ability.replace("_", " ") for ability, has in offered.items() if has) or "nothing but its work"


def _setting(field: SettingField) -> dict[str, Any]:
    import msgspec

    required = field.default is msgspec.UNSET and ":-" not in (field.expression or "")
    return {
        "name": field.name,
        "type": _type_name(field.type),
        "environment": field.expression,
        "required": required,
        "default": None if field.default is msgspec.UNSET else msgspec.to_builtins(field.default, enc_hook=str),
    }


def _type_name(hint: Any) -> str:
    """A type as people write it: without its bounds, and without the modules of its words."""
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if base is type(None):
        return "none"
    if get_origin(base) is Literal:
        return " or ".join(map(str, get_args(base)))
    if get_origin(base) in (Union, UnionType):
        return " or ".join(map(_type_name, get_args(base)))
    if get_origin(base) is tuple:
        return "list of " + _type_name(get_args(base)[0])
    if isinstance(base, type):
        return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
            base.__name__, base.__name__
        )
    return str(base).replace("typing.", "")


def _default(setting: dict[str, Any]) -> str:
    if setting["required"]:
        return "(must be given)"
    return "" if setting["default"] is None else str(setting["default"])
