"""Folders of this machine as a provider."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from emp_trio.assets.naming import check_segment
from emp_trio.assets.stores import AssetStore
from emp_trio.assets.stores.provider import Provider, ReportProblem, StoreTimeouts
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret


class LocalRoot(msgspec.Struct, frozen=True, kw_only=True):
    """The folder for assets (``LOCAL_STORAGE_PATH``). It may be a link itself; links below it are not followed."""

    path: Path

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """None."""
        return ()


class LocalFolder(msgspec.Struct, frozen=True, kw_only=True):
    """The folder for assets, or a folder inside it."""

    root: Path
    container: str | None = None

    def resolved(self) -> Path:
        """Return the path with the operator's links resolved."""
        root = self.root.resolve()
        return root if self.container is None else root / self.container


class LocalProvider:
    """``CLOUD_STORAGE_PROVIDER=local``."""

    name = "local"
    aliases: tuple[str, ...] = ()

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> LocalRoot | None:
        """``LOCAL_STORAGE_PATH``."""
        path = env.get("LOCAL_STORAGE_PATH")
        if path is None and chosen:
            report("LOCAL_STORAGE_PATH", "is not set", "CLOUD_STORAGE_PROVIDER=local needs a folder to write to")
        return LocalRoot(path=Path(path).absolute()) if path is not None else None

    def check_name(self, container: str) -> str | None:
        """A folder."""
        try:
            check_segment("the container", container)
        except InvalidJob as error:
            return error.message
        return None

    def location_for(
        self, ctx: JobContext, account: LocalRoot | None, container: str | None
    ) -> tuple[LocalFolder, bool]:
        """Return the operator's folder, or one below it."""
        if account is None:
            raise ConfigError(
                "the job asks for local storage, and LOCAL_STORAGE_PATH is not set in this worker's environment"
            )
        return LocalFolder(root=account.path, container=container), True

    def requires(self, location: LocalFolder, ctx: JobContext) -> None:
        """Check that the container is not a link: the store does not follow it."""
        if location.container is not None and os.path.islink(location.resolved()):
            text = (
                f"the container {location.container!r} leads out of the folder: "
                "it is a symbolic link, and none is followed"
            )
            if ctx.bucket is not None:
                raise InvalidJob(f"{text} (ctx.storage.bucket)")
            raise ConfigError(f"{text} (CLOUD_STORAGE_CONTAINER)")

    def load(self) -> None:
        """Do nothing: the store needs no library."""

    def open(self, location: LocalFolder, timeouts: StoreTimeouts) -> AssetStore:
        """Open a folder."""
        from emp_trio.assets.stores.providers.local.store import LocalStore

        return LocalStore(location.resolved())


PROVIDER: Final[Provider[LocalRoot, LocalFolder]] = LocalProvider()
