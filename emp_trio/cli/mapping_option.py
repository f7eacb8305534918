"""The option that names the mapping file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

MappingOption = Annotated[
    Path | None,
    Parameter(name="--mapping", help="Service mapping file; else SERVICE_MAPPING, else the one of the package."),
]


def mapping_file(given: Path | None, env: Mapping[str, str]) -> Path | None:
    """The mapping file: the one given, the one of ``SERVICE_MAPPING``, or None for the one of the package."""
    named = env.get("SERVICE_MAPPING", "").strip()
    return given or (Path(named) if named else None)
