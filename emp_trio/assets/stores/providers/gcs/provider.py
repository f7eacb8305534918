"""Google Cloud Storage as a provider: account, bucket names, opening of stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from emp_trio.assets.stores import AssetStore
from emp_trio.assets.stores.provider import Provider, ReportProblem, StoreTimeouts, require_module, required_container
from emp_trio.assets.stores.providers.gcs.account import GcsAccount, GcsBucket
from emp_trio.assets.validators import base_url_problem, without_slash
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import excerpt

_BUCKET: Final = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class GcsProvider:
    """``CLOUD_STORAGE_PROVIDER=gcs``."""

    name = "gcs"
    aliases: tuple[str, ...] = ("google",)  # the fleet's name (protocol 5.2)

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> GcsAccount | None:
        """Read ``GOOGLE_APPLICATION_CREDENTIALS`` and ``STORAGE_EMULATOR_HOST``. Jobs can't bring their own account."""
        file, endpoint = env.get("GOOGLE_APPLICATION_CREDENTIALS"), env.get("STORAGE_EMULATOR_HOST")
        if not chosen and file is None:
            return None
        if endpoint is not None:
            endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
            if text := base_url_problem(endpoint):
                report("STORAGE_EMULATOR_HOST", text)
        return GcsAccount(credentials=Path(file).absolute() if file else None, endpoint=without_slash(endpoint))

    def check_name(self, container: str) -> str | None:
        """Check the name of a bucket."""
        if _BUCKET.fullmatch(container):
            return None
        shown = excerpt(container, 80)
        return f"{shown!r} is not a Google bucket: 3 to 222 lower-case letters, digits, hyphens, underscores and dots"

    def location_for(
        self, ctx: JobContext, account: GcsAccount | None, container: str | None
    ) -> tuple[GcsBucket, bool]:
        """Return a bucket of the worker's account, the only one supported."""
        if ctx.account_name is not None or ctx.account_key is not None:
            raise InvalidJob(
                "the job's ctx names an account for Google storage (storage.accountName or accountKey), and jobs can't "
                "bring Google credentials; this worker's own are used for jobs that name no account",
                reason="unsupported_operation",
            )
        if account is None:
            raise ConfigError(
                "the job asks for Google storage, and this worker has no account there: "
                "set CLOUD_STORAGE_PROVIDER=gcs or GOOGLE_APPLICATION_CREDENTIALS"
            )
        location = GcsBucket(
            credentials=account.credentials,
            endpoint=account.endpoint,
            bucket=required_container(container),
        )
        return location, True

    def requires(self, location: GcsBucket, ctx: JobContext) -> None:
        """Google's library."""
        require_module("google.cloud.storage", extra=self.name)

    def load(self) -> None:
        """Import Google's library."""
        import emp_trio.assets.stores.providers.gcs.store  # noqa: F401

    def open(self, location: GcsBucket, timeouts: StoreTimeouts) -> AssetStore:
        """Open a bucket."""
        from emp_trio.assets.stores.providers.gcs.store import GcsStore

        return GcsStore(location, timeouts)


PROVIDER: Final[Provider[GcsAccount, GcsBucket]] = GcsProvider()
