"""Storage for tests: a folder of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.stores.providers.local.provider import LocalRoot


def local_storage(folder: Path, **settings: Any) -> StorageSettings:
    """Settings of a worker that saves assets in a folder.

    Args:
        settings: other fields of :class:`~emp_trio.assets.config.StorageSettings`.
    """
    return StorageSettings(provider="local", accounts={"local": LocalRoot(path=folder)}, **settings)
