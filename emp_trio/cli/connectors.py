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
    """List the installed connectors, or the settings of one.

    The list shows the features of each connector's service. With a name, shows
    the settings that api_config in the mapping or the environment can set.

    For example:

        emp-trio connectors
        emp-trio connectors OpenAIResponsesConnector

    Args:
        name: Connector to show.
        json: Print one JSON object.
    """
    from emp_trio.services.registry import connectors as installed

    available = {info.name: info for info in installed()}
    if name is None:
        return _list(list(available.values()), json)
    if name not in available:
        from emp_trio.mapping.suggestions import did_you_mean

        hint = did_you_mean(name, available) or "see: emp-trio connectors"
        raise ConfigError(f"there is no connector {name!r}; {hint}")
    return _show(available[name], json)


def _list(connectors: list[ConnectorInfo], json: bool) -> int:
    if json:
        print_json({"connectors": connectors})
    else:
        usable = [info for info in connectors if not info.problem]
        print_table(
            ("CONNECTOR", "SERVICE TYPE", "ITS SERVICE OFFERS", "FROM"),
            [(info.name, info.service_type, _abilities(info), info.origin) for info in usable],
        )
    for info in connectors:
        if info.problem:
            print_problem(info.problem, label="warning")
    return FAILED if any(info.problem for info in connectors) else OK


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
    print("".join(f"It has no {name.replace('_', ' ')}: {reason}\n" for name, reason in lacks.items()))
    print_table(
        ("SETTING", "TYPE", "ENVIRONMENT", "DEFAULT"),
        [(s["name"], s["type"], s["environment"] or "", _default(s)) for s in settings],
    )
    return OK


def _abilities(info: ConnectorInfo) -> str:
    import msgspec

    offered = msgspec.structs.asdict(info.service_features) if info.service_features is not None else {}
    return (
        ", ".join(feature.replace("_", " ") for feature, supported in offered.items() if supported)
        or "nothing but its work"
    )


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
    """Format a type for people: without bounds and module names."""
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
