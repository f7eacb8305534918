"""Where one job's assets go: the job's ``ctx`` first, the worker's environment second, field by field. Pure.

One rule stands above that order: what belongs to the worker's account stays with it. A job that names another account
must bring that account's key; the worker's own key, endpoint and CDN are not used for it. Otherwise a job could have
requests signed with the operator's key sent to a host of its choice.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from emp_trio.assets.config import (
    NOT_YET,
    Provider,
    StorageSettings,
    account_problem,
    base_url_problem,
    container_problem,
    key_problem,
    with_scheme,
)
from emp_trio.assets.naming import check_segment
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret


class AzurePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an Azure account; ``endpoint`` is the base URL of its blob service."""

    account: str
    key: Secret
    endpoint: str
    container: str


class LocalPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of this machine."""

    folder: Path


Place = AzurePlace | LocalPlace


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A place, and the CDN in front of it: a base URL with scheme and without a slash at its end, or None."""

    place: Place
    cdn_url: str | None = None


def destination(ctx: JobContext, settings: StorageSettings) -> Destination:
    """Where assets of a job with this context go.

    Raises:
        InvalidJob: the job asks for what no worker would do (an unsafe name, a provider this version lacks, another
            account without its key).
        ConfigError: neither the job nor this worker's environment says something that is needed; the text names it.
    """
    provider = _provider(ctx, settings)
    ours = settings.provider in (provider, None)
    if provider == "local":
        place: Place = _local(ctx, settings)
    else:
        place = _azure(ctx, settings)
        ours = ours and settings.azure_account in (place.account, None)
    cdn = ctx.cdn_url or (settings.cdn_url if ours else None)
    if cdn is None:
        return Destination(place=place)
    cdn = with_scheme(cdn.strip())
    if text := base_url_problem(cdn):
        raise InvalidJob(f"the CDN address of ctx.storage.cdnUrl {text}")
    return Destination(place=place, cdn_url=cdn)


def _provider(ctx: JobContext, settings: StorageSettings) -> Provider:
    asked = (ctx.provider or "").strip().lower() or settings.provider
    if asked == "azure":
        return "azure"
    if asked == "local":
        return "local"
    if asked is None:
        raise ConfigError(
            "there is nowhere to save assets: neither the job's ctx (storage.provider) nor this worker's environment "
            "names a storage provider. Set CLOUD_STORAGE_PROVIDER=azure with CLOUD_STORAGE_CONTAINER, "
            "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY, or CLOUD_STORAGE_PROVIDER=local with LOCAL_STORAGE_PATH"
        )
    detail = "is not in this version" if asked in NOT_YET else "is not known"
    raise InvalidJob(
        f"the storage provider {asked[:80]!r} of the job's ctx {detail}: use azure or local",
        reason="unsupported_operation",
    )


def _local(ctx: JobContext, settings: StorageSettings) -> LocalPlace:
    if settings.local_path is None:
        raise ConfigError(
            "the job asks for local storage, and LOCAL_STORAGE_PATH is not set in this worker's environment"
        )
    container = ctx.bucket or settings.container
    if container is None:
        return LocalPlace(folder=settings.local_path)
    check_segment("the container (ctx.storage.bucket)", container)
    return LocalPlace(folder=settings.local_path / container)


def _azure(ctx: JobContext, settings: StorageSettings) -> AzurePlace:
    account = ctx.account_name or settings.azure_account
    if account is None:
        raise ConfigError(
            "Azure storage needs an account: neither the job's ctx (storage.accountName) nor AZURE_STORAGE_ACCOUNT "
            "in this worker's environment names one"
        )
    if text := account_problem(account):
        raise InvalidJob(f"ctx.storage.accountName: {text}")
    ours = account == settings.azure_account
    key = ctx.account_key or (settings.azure_key if ours else None)
    if key is None and ours:
        raise ConfigError(f"Azure storage needs the key of the account {account}: set AZURE_STORAGE_KEY")
    if key is None:
        raise InvalidJob(
            f"the job's ctx names the Azure account {account} and brings no key for it (storage.accountKey); "
            "this worker's own key is used for its own account only"
        )
    if text := key_problem(key):
        raise InvalidJob(f"ctx.storage.accountKey {text}")
    container = ctx.bucket or settings.container
    if container is None:
        raise ConfigError(
            "Azure storage needs a container: neither the job's ctx (storage.bucket) nor CLOUD_STORAGE_CONTAINER "
            "in this worker's environment names one"
        )
    if text := container_problem(container):
        raise InvalidJob(f"ctx.storage.bucket: {text}")
    public = f"https://{account}.blob.core.windows.net"
    endpoint = (settings.azure_endpoint if ours else None) or public
    return AzurePlace(account=account, key=key, endpoint=endpoint, container=container)
