"""Connectors by name: those built in, those of other packages, and those the mapping names by their place.

Nothing is imported before it is asked for: a worker that runs one connector loads one connector.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from emp_trio.errors import ConfigError
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.services.connector import Connector, ServiceFeatures
from emp_trio.settings import setting_fields

GROUP: Final = "emp_trio.connectors"

_BUILT_IN: Final = {
    "A1111WebSocketConnector": "emp_trio.services.a1111.connector:A1111WebSocketConnector",
    "ComfyUIRemoteConnector": "emp_trio.services.comfyui.connectors:ComfyUIRemoteConnector",
    "ComfyUIWebSocketConnector": "emp_trio.services.comfyui.connectors:ComfyUIWebSocketConnector",
    "GeminiConnector": "emp_trio.services.gemini.connector:GeminiConnector",
    "LimitedServiceConnector": "emp_trio.services.limited:LimitedServiceConnector",
    "MockConnector": "emp_trio.services.mock:MockConnector",
    "OllamaConnector": "emp_trio.services.ollama.connector:OllamaConnector",
    "OpenAIImg2ImgConnector": "emp_trio.services.openai.images.img2img:OpenAIImg2ImgConnector",
    "OpenAIResponsesConnector": "emp_trio.services.openai.responses.connector:OpenAIResponsesConnector",
    "OpenAIText2ImgConnector": "emp_trio.services.openai.images.text2img:OpenAIText2ImgConnector",
    "OpenAITextConnector": "emp_trio.services.openai.chat.text:OpenAITextConnector",
    "OpenAITextSimpleConnector": "emp_trio.services.openai.chat.text_simple:OpenAITextSimpleConnector",
    "RestAsyncConnector": "emp_trio.services.rest.background:RestAsyncConnector",
    "RestSyncConnector": "emp_trio.services.rest.sync:RestSyncConnector",
    "SimulationConnector": "emp_trio.services.simulation.in_process:SimulationConnector",
    "SimulationHttpConnector": "emp_trio.services.simulation.http:SimulationHttpConnector",
    "SimulationWebsocketConnector": "emp_trio.services.simulation.websocket:SimulationWebsocketConnector",
}


class ConnectorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a connector without starting it.

    ``place`` is ``package.module:Class``; ``origin`` says who brings it; ``problem`` says why it can't be used, and is
    empty when it can.
    """

    name: str
    place: str
    origin: str
    service_type: str = ""
    service_features: ServiceFeatures | None = None
    problem: str = ""


def find_connector(name: str, path: str | None = None) -> type[Connector] | None:
    """The connector class of that name.

    Args:
        name: the class name that the mapping uses.
        path: ``connectors[name].path`` of the mapping. ``package.module:Class`` is imported; a path ending in ``.js``
            belongs to the fleet's own worker and means "by name", as does None.

    Returns:
        the class, or None when nobody has a connector of that name, or of one like it.

    Raises:
        ConfigError: there is one, but it can't be imported or is no connector; says why. Or there is one of nearly that
            name.
    """
    if path and not path.endswith(".js"):
        return _load(path, f"connectors[{name!r}].path")
    if name in _BUILT_IN:
        return _load(_BUILT_IN[name], f"the built-in connector {name}")
    found = [point for point in _entry_points() if point.name == name]
    if not found:
        if hint := did_you_mean(name, sorted({*_BUILT_IN, *(point.name for point in _entry_points())})):
            raise ConfigError(f"there is no connector {name!r} ({hint})")
        return None
    if len({point.value for point in found}) > 1:
        places = ", ".join(f"{point.value} of {_package(point)}" for point in found)
        raise ConfigError(f"the connector {name} comes from more than one package: {places}; uninstall one")
    return _load(found[0].value, f"the connector {name} of {_package(found[0])}")


def connectors() -> list[ConnectorInfo]:
    """Every connector that can be found by name, sorted by name; broken ones with the reason."""
    known = [(name, place, "built in") for name, place in _BUILT_IN.items()]
    known += [(p.name, p.value, _package(p)) for p in _entry_points() if p.name not in _BUILT_IN]
    return [_describe(name, place, origin) for name, place, origin in sorted(known)]


def _describe(name: str, place: str, origin: str) -> ConnectorInfo:
    try:
        cls = _load(place, f"the connector {name}")
    except ConfigError as error:
        return ConnectorInfo(name=name, place=place, origin=origin, problem=error.message)
    return ConnectorInfo(
        name=name, place=place, origin=origin, service_type=cls.service_type, service_features=cls.service_features
    )


def _entry_points() -> Iterator[importlib.metadata.EntryPoint]:
    yield from importlib.metadata.entry_points(group=GROUP)


def _package(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"


def _load(place: str, what: str) -> type[Connector]:
    module, colon, attribute = place.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"{what}: {place!r} is not of the form package.module:Class")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs foreign code, which may raise anything
        raise ConfigError(f"{what}: {place} cannot be imported: {type(error).__name__}: {error}") from error
    fault = _fault(found)
    if fault:
        raise ConfigError(f"{what}: {place} {fault}")
    return found  # type: ignore[no-any-return]


def _fault(found: Any) -> str:
    """Why ``found`` is no usable connector class, or ""."""
    if not inspect.isclass(found):
        return f"is not a class but {type(found).__name__}"
    if not issubclass(found, Connector):
        return "does not have emp_trio.services.connector.Connector among its bases"
    if found.run is Connector.run:
        return "has no run method"
    if not inspect.iscoroutinefunction(found.run):
        return "has a run method that is not async"
    settings = found.Settings
    if not (inspect.isclass(settings) and issubclass(settings, msgspec.Struct)):
        return "has a Settings that is not a msgspec.Struct"
    if not settings.__struct_config__.frozen:
        return "has Settings that are not frozen: write class Settings(msgspec.Struct, frozen=True, kw_only=True)"
    try:
        setting_fields(settings)
    except (TypeError, NameError) as error:
        return f"has Settings that cannot be read: {error}"
    return ""
