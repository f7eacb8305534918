"""What the tests of connectors share: jobs, and a connector_context whose assets land in a real folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from emp_trio.assets.config import KeepSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.connector_context import ConnectorContext
from emp_trio.jobs import Job
from emp_trio.testing.storage import local_storage


def job(payload: dict[str, Any] | None = None, **fields: Any) -> Job:
    """An attempt of a job of no particular type."""
    return Job(id=fields.pop("id", "job-1"), type="any", payload=payload or {}, **fields)


@asynccontextmanager
async def open_toolbox(folder: Path) -> AsyncIterator[ConnectorContext]:
    """A worker's connector_context that stores assets in a folder, and keeps what it can't store beside it."""
    keep = KeepSettings(folder=folder.with_name(f"{folder.name}-kept"))
    async with open_asset_storage(local_storage(folder, keep=keep)) as saver:
        yield ConnectorContext(assets=saver)


def stored(folder: Path) -> dict[str, bytes]:
    """Every asset in the folder, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"}
