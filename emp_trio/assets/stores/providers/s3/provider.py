"""S3 and compatible services as a provider: account, bucket names, opening of stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from emp_trio.assets.stores import AssetStore
from emp_trio.assets.stores.provider import (
    Provider,
    ReportProblem,
    StoreTimeouts,
    missing_key,
    require_module,
    required_container,
)
from emp_trio.assets.stores.providers.s3.account import S3Account, S3Bucket
from emp_trio.assets.validators import base_url_problem, without_slash
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret, excerpt

_BUCKET: Final = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KEY_ID: Final = re.compile(r"[\x21-\x2b\x2d\x2e\x30-\x7e]{1,128}")


class S3Provider:
    """``CLOUD_STORAGE_PROVIDER=s3``."""

    name = "s3"
    aliases: tuple[str, ...] = ("aws",)  # the fleet's name (protocol 5.2)

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> S3Account | None:
        """Read ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``,
        ``S3_ENDPOINT_URL``. If the worker uses another provider, only an access key counts as an account."""
        key_id, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
        if not chosen and not (key_id and secret):
            return None
        if (key_id is None) != (secret is None):
            missing, other = (
                ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY") if key_id is None else ("SECRET_ACCESS_KEY", "ACCESS_KEY_ID")
            )
            report(f"AWS_{missing}", f"is not set although AWS_{other} is")
        if key_id is not None and (text := _key_id_problem(key_id)):
            report("AWS_ACCESS_KEY_ID", text)
        region_variable = "AWS_REGION" if "AWS_REGION" in env else "AWS_DEFAULT_REGION"
        region = env.get(region_variable, "us-east-1")
        if text := _region_problem(region):
            report(region_variable, text)
        endpoint = None
        for variable in ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if variable in env:
                endpoint = env[variable]
                if text := base_url_problem(endpoint):
                    report(variable, text)
                break
        token = env.get("AWS_SESSION_TOKEN")
        return S3Account(
            key_id=key_id,
            secret=Secret(secret) if secret else None,
            token=Secret(token) if token and secret else None,
            region=region,
            endpoint=without_slash(endpoint),
        )

    def check_name(self, container: str) -> str | None:
        """Check a bucket name strictly, because it becomes part of a host name or path."""
        if _BUCKET.fullmatch(container):
            return None
        return (
            f"{excerpt(container, 80)!r} is not an S3 bucket: "
            "3 to 63 lower-case letters, digits, hyphens and single dots"
        )

    def location_for(self, ctx: JobContext, account: S3Account | None, container: str | None) -> tuple[S3Bucket, bool]:
        """Return the location. A job names an S3 account by its access key id, as ``accountName``."""
        key_id = ctx.account_name
        ours = key_id is None or (account is not None and account.key_id == key_id)
        if not ours:
            if ctx.account_key is None:
                raise missing_key(f"S3 access key id {key_id or ''}")
            if text := _key_id_problem(key_id or ""):
                raise InvalidJob(f"ctx.storage.accountName {text}")
            # May be the region of another bucket: S3 then tells boto3 the right one.
            region = account.region if account is not None and account.endpoint is None else "us-east-1"
            used = S3Account(key_id=key_id, secret=ctx.account_key, region=region)
        elif account is None:
            raise ConfigError(
                "the job asks for S3 storage and brings no account (storage.accountName, storage.accountKey), and this "
                "worker has none: set CLOUD_STORAGE_PROVIDER=s3, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        elif ctx.account_key is not None and ctx.account_key != account.secret:
            raise InvalidJob(
                "the job's ctx has storage.accountKey for S3 and no storage.accountName of its own with it"
            )
        else:
            used = account
        return S3Bucket(account=used, bucket=required_container(container)), ours

    def requires(self, location: S3Bucket, ctx: JobContext) -> None:
        """boto3."""
        require_module("boto3", extra=self.name)

    def load(self) -> None:
        """Import boto3."""
        import emp_trio.assets.stores.providers.s3.store  # noqa: F401

    def open(self, location: S3Bucket, timeouts: StoreTimeouts) -> AssetStore:
        """Open a bucket."""
        from emp_trio.assets.stores.providers.s3.store import S3Store

        return S3Store(location, timeouts)


def _region_problem(region: str) -> str | None:
    """Check an AWS region, because it becomes part of a host name."""
    return None if _REGION.fullmatch(region) else f"{excerpt(region, 80)!r} is not a region such as eu-central-1"


def _key_id_problem(key_id: str) -> str | None:
    """Check an AWS access key id, because it goes into a header with separators."""
    return None if _KEY_ID.fullmatch(key_id) else "is not an access key id"


PROVIDER: Final[Provider[S3Account, S3Bucket]] = S3Provider()
