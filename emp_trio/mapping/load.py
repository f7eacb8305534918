"""Read and check the mapping file: :func:`load_mapping`."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Final

import msgspec

from emp_trio.errors import ConfigError, Problem
from emp_trio.mapping.decode import decode
from emp_trio.mapping.diagnostics import MOST, Diagnostics, TooMany
from emp_trio.mapping.document import LARGEST, parse
from emp_trio.mapping.paths import ROOT, child, service_path, worker_path
from emp_trio.mapping.schema import ServiceMapping
from emp_trio.mapping.suggestions import did_you_mean

_NAME: Final = "service-mapping.json"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping and its problems.

    Attributes:
        source: name of the file, for messages.
        mapping: the valid part of the file.
        problems: errors and warnings, in file order.
    """

    source: str
    mapping: ServiceMapping
    problems: tuple[Problem, ...] = ()

    def checked(self) -> ServiceMapping:
        """Return the mapping.

        Raises:
            ConfigError: the mapping has errors; they are its ``problems``.
        """
        errors = [p for p in self.problems if p.severity == "error"]
        if errors:
            raise ConfigError(f"the mapping {self.source} has {_count(len(errors))}", problems=errors)
        return self.mapping


def load_mapping(source: Path | None, *, strict: bool = False) -> Loaded:
    """Read a mapping file.

    Args:
        source: the file, or None for the mapping of the package.
        strict: report unknown fields as errors instead of warnings.

    Returns:
        the mapping with its problems; :meth:`Loaded.checked` raises the errors.

    Raises:
        ConfigError: the file can't be read, or is not a JSON object.
    """
    name = str(source) if source is not None else _NAME
    diagnostics = Diagnostics()
    data = _read(source) if source is not None else _packaged()
    mapping = ServiceMapping()
    try:
        document = parse(data, name, diagnostics)
        mapping = decode(document, ServiceMapping, ROOT, diagnostics, strict=strict)
        _check_names(mapping, diagnostics)
    except TooMany:
        capped = Problem(path=ROOT, message=f"more than {MOST} problems: the rest was not looked at")
        diagnostics.problems.append(capped)
    return Loaded(source=name, mapping=mapping, problems=tuple(diagnostics.problems))


def _read(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            "the mapping can't be read",
            problems=[Problem(path=ROOT, message=f"{source}: {(reason or type(error).__name__).lower()}")],
        ) from error


def _packaged() -> bytes:
    """Return the mapping of the package: inside an installed package, beside it in a checkout."""
    package = importlib.resources.files("emp_trio.mapping")
    for place in (package / "data" / _NAME, Path(__file__).parents[2] / "mappings" / _NAME):
        if place.is_file():
            return place.read_bytes()
    raise ConfigError("this installation of emp-trio holds no mapping: name a file with --mapping or SERVICE_MAPPING")


def _check_names(mapping: ServiceMapping, diagnostics: Diagnostics) -> None:
    """Warn about undefined names. They become errors only for the workers that are started."""
    for worker_name, worker in mapping.workers.items():
        path = worker_path(worker_name, "job_service_required_map")
        seen: set[str] = set()
        for index, route in enumerate(worker.job_service_required_map):
            if route.job_service_required in seen:
                diagnostics.warning(
                    child(child(path, index), "job_service_required"),
                    f"{route.job_service_required!r} stands here twice; the first entry is used",
                )
            seen.add(route.job_service_required)
            _check_service(mapping, child(child(path, index), "worker_service"), route.worker_service, diagnostics)
        for index, name in enumerate(worker.services):
            _check_service(mapping, child(worker_path(worker_name, "services"), index), name, diagnostics)
    for service_name, service in mapping.services.items():
        if service.connector and mapping.connectors and service.connector not in mapping.connectors:
            diagnostics.warning(
                service_path(service_name, "connector"),
                f"{service.connector!r} is not in connectors",
                did_you_mean(service.connector, mapping.connectors) or "it is looked up by its name alone",
            )


def _check_service(mapping: ServiceMapping, path: str, name: str, diagnostics: Diagnostics) -> None:
    if name and name not in mapping.services:
        diagnostics.warning(path, f"there is no service {name!r}", did_you_mean(name, mapping.services))


def _count(errors: int) -> str:
    return "an error" if errors == 1 else f"{errors} errors"
