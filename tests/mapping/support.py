"""Connectors and mappings for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping import Loaded, Plan, load_mapping, plan
from emp_trio.secrets import Secret
from emp_trio.settings import Env

DATA = Path(__file__).parents[1] / "data"
FLEET_FILE = DATA / "fleet-service-mapping.json"


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """A part, as a protocol mixin has one."""

    base_url: str
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = 3
    verify: bool = True


class ImageConnector:
    """Has one setting of each kind."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        api_key: Annotated[Secret, Env("${IMAGE_API_KEY}")]
        web: Annotated[Web, Env(base_url="${IMAGE_URL:-https://images.example/v1}", timeout="${IMAGE_TIMEOUT}")]
        quality: Annotated[Literal["low", "high"], Env("${IMAGE_QUALITY:-low}")] = "low"
        style: Annotated[str | None, Env("${IMAGE_STYLE:-}")] = None


class EchoConnector:
    """Needs nothing."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        pass


class AddressConnector:
    """Has a setting that only the mapping can give, and one made of two variables."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        address: str
        url: Annotated[str, Env("http://${ADDRESS_HOST:-localhost}:${ADDRESS_PORT:-80}")]
        token: Secret | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """A part, as the mixin of that name has one."""

    max_concurrent_jobs: int | None = None


class GpuConnector:
    """Talks to a process at a port."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        limits: Limits = Limits()
        port: Annotated[int, Env("${GPU_PORT:-${GPU_BASE_PORT:-8188}}")] = 8188


CONNECTORS: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (ImageConnector, EchoConnector, AddressConnector, GpuConnector)
}


def find(name: str, path: str | None) -> type[Any] | None:
    """A registry of the connectors above."""
    if path == "broken:Broken":
        raise ConfigError("broken:Broken cannot be imported: it is broken")
    return CONNECTORS.get(name)


def worker(*routes: str, **fields: Any) -> dict[str, Any]:
    """A worker entry; a route is ``job_type>service``."""
    pairs = [route.split(">") for route in routes]
    return {
        "job_service_required_map": [
            {"job_service_required": job, "worker_service": service} for job, service in pairs
        ],
        **fields,
    }


def mapping_file(tmp_path: Path, **parts: Any) -> Path:
    """Write a mapping and return its path."""
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(parts), encoding="utf-8")
    return path


def load(tmp_path: Path, **parts: Any) -> Loaded:
    """Write and read a mapping."""
    return load_mapping(mapping_file(tmp_path, **parts))


def planned(tmp_path: Path, wanted: str, *, env: dict[str, str] | None = None, gpus: int = 0, **parts: Any) -> Plan:
    """Write, read and plan."""
    return plan(load(tmp_path, **parts).checked(), wanted, env=env or {}, gpus=gpus, find_connector=find)


def said(problems: tuple[Problem, ...] | list[Problem]) -> list[str]:
    """Problems as (severity, text) lines."""
    return [f"{problem.severity}: {problem}" for problem in problems]
