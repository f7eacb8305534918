"""``emp-trio connectors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

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
        from emp_trio.mapping.near import did_you_mean

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
    print(f"{info.name} ({info.place}, {info.origin})\nIts service offers: {_abilities(info)}\n")
    print_table(
        ("SETTING", "TYPE", "ENVIRONMENT", "DEFAULT"),
        [(s["name"], s["type"], s["environment"] or "", _default(s)) for s in settings],
    )
    return OK


def _abilities(info: ConnectorInfo) -> str:
    import msgspec

    offered = msgspec.structs.asdict(info.abilities) if info.abilities is not None else {}
    return ", ".join(ability.replace("_", " ") for ability, has in offered.items() if has) or "nothing but its work"


def _setting(field: SettingField) -> dict[str, Any]:
    import msgspec

    required = field.default is msgspec.UNSET and ":-" not in (field.expression or "")
    base = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
    return {
        "name": field.name,
        "type": base.__name__ if isinstance(base, type) else str(base).replace("typing.", ""),
        "environment": field.expression,
        "required": required,
        "default": None if field.default is msgspec.UNSET else msgspec.to_builtins(field.default, enc_hook=str),
    }


def _default(setting: dict[str, Any]) -> str:
    if setting["required"]:
        return "(must be given)"
    return "" if setting["default"] is None else str(setting["default"])
