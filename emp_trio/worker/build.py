"""Version and build of emp-trio, as reported to the fleet (queue protocol 2.8)."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from emp_trio import __file__ as _package
from emp_trio import __version__
from emp_trio.queue.messages import iso

_BUILT: Final = ("BUILD_TIMESTAMP", "BUILD_DATE")


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """Version, time and description of a build; the names are the fleet's."""

    version: str
    build_timestamp: str
    build_info: str


def this_build(env: Mapping[str, str]) -> Build:
    """Return the running build: ``VERSION``, and ``BUILD_TIMESTAMP`` or ``BUILD_DATE`` of the environment.

    Defaults: version and installation time of the package.
    """
    built = next((env[name] for name in _BUILT if env.get(name)), None)
    if built is None:
        try:
            built = iso(Path(_package).stat().st_mtime)
        except OSError:  # the package is not a file and has no time
            built = "unknown"
    return Build(
        version=env.get("VERSION") or __version__,
        build_timestamp=built,
        build_info=f"emp-trio {__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}",
    )
