"""Define the ``--mapping`` option."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

MappingOption = Annotated[
    Path | None,
    Parameter(
        name="--mapping", help="Service mapping file. Default: SERVICE_MAPPING, then the mapping of the package."
    ),
]


def mapping_file(option: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return the mapping file of the option, or of ``SERVICE_MAPPING``, or None for the mapping of the package."""
    named = env.get("SERVICE_MAPPING", "").strip()
    return option or (Path(named) if named else None)
