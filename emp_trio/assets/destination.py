"""Where one job's assets go: the job's ``ctx`` first, the worker's environment second, field by field. Pure.

One rule stands above that order: what belongs to the worker's account stays with it. A job that names another account
must bring that account's key; the worker's own key, endpoint and CDN are not used for it. Otherwise a job could have
requests signed with the operator's key sent to a host of its choice.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from emp_trio.assets.accounts import S3Account
from emp_trio.assets.config import PROVIDERS, Provider, StorageSettings, place_problem
from emp_trio.assets.validators import account_problem, base_url_problem, key_id_problem, key_problem, with_scheme
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.protocols.urls import origin
from emp_trio.secrets import Secret, excerpt


class AzurePlace(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an Azure account; ``endpoint`` is the base URL of its blob service. With neither key nor shared
    access signature, this machine signs in as itself."""

    account: str
    key: Secret | None = None
    sas: Secret | None = None
    endpoint: str
    container: str


class S3Place(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, and the account to use it with."""

    account: S3Account
    bucket: str


class GcsPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket of Google Cloud Storage; ``credentials`` and ``endpoint`` as in ``GcsAccount``."""

    credentials: Path | None
    endpoint: str | None
    bucket: str


class LocalPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of this machine."""

    folder: Path


Place = AzurePlace | S3Place | GcsPlace | LocalPlace


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A place, and the CDN in front of it: a base URL with scheme and without a slash at its end, or None."""

    place: Place
    cdn_url: str | None = None


def destination(ctx: JobContext, settings: StorageSettings) -> Destination:
    """Where assets of a job with this context go.

    Raises:
        InvalidJob: the ctx is no JSON object, or the job asks for what no worker would do (an unsafe name, an unknown
            provider, another account without its key).
        ConfigError: neither the job nor this worker's environment says something that is needed; the text names it.
    """
    if ctx.unusable is not None:
        raise InvalidJob(f"the job's ctx does not say where to store anything: {ctx.unusable}", reason="invalid_format")
    provider = _provider(ctx, settings)
    places = {"azure": _azure, "s3": _s3, "gcs": _gcs, "local": _local}
    place, ours = places[provider](ctx, settings)
    ours = ours and settings.provider in (provider, None)
    cdn = ctx.cdn_url or (settings.cdn_url if ours else None)
    if cdn is None:
        return Destination(place=place)
    cdn = with_scheme(cdn.strip())
    if text := base_url_problem(cdn):
        raise InvalidJob(f"the CDN address of ctx.storage.cdnUrl {text}")
    return Destination(place=place, cdn_url=cdn)


def is_own_cdn(cdn: str, settings: StorageSettings) -> bool:
    """Whether the CDN of a destination is the operator's (``CLOUD_CDN_URL``), which is trusted wherever it is. A job
    that names the very same one, path and all, changes nothing."""
    if settings.cdn_url is None:
        return False
    own = with_scheme(settings.cdn_url.strip())
    return origin(cdn) == origin(own) and urlsplit(cdn).path == urlsplit(own).path


def _provider(ctx: JobContext, settings: StorageSettings) -> Provider:
    asked = (ctx.provider or "").strip().lower() or settings.provider
    if asked is None:
        raise ConfigError(
            "there is nowhere to save assets: neither the job's ctx (storage.provider) nor this worker's environment "
            "names a storage provider. Set CLOUD_STORAGE_PROVIDER to azure, s3 or gcs with CLOUD_STORAGE_CONTAINER and "
            "the account's variables, or CLOUD_STORAGE_PROVIDER=local with LOCAL_STORAGE_PATH"
        )
    if asked not in PROVIDERS:
        raise InvalidJob(
            f"the storage provider {excerpt(asked, 80)!r} of the job's ctx is not known: "
            "use azure, aws, google or local",
            reason="unsupported_operation",
        )
    return PROVIDERS[asked]


def _local(ctx: JobContext, settings: StorageSettings) -> tuple[Place, bool]:
    if settings.local_path is None:
        raise ConfigError(
            "the job asks for local storage, and LOCAL_STORAGE_PATH is not set in this worker's environment"
        )
    if not (ctx.bucket or settings.container):
        return LocalPlace(folder=settings.local_path), True
    return LocalPlace(folder=settings.local_path / _container("local", ctx, settings)), True


def _azure(ctx: JobContext, settings: StorageSettings) -> tuple[Place, bool]:
    own = settings.azure
    name = ctx.account_name or (own.name if own else None)
    if name is None:
        raise ConfigError(
            "Azure storage needs an account: neither the job's ctx (storage.accountName) nor AZURE_STORAGE_ACCOUNT "
            "in this worker's environment names one"
        )
    if text := account_problem(name):
        raise InvalidJob(f"ctx.storage.accountName: {text}")
    ours = own is not None and name == own.name
    key, sas, endpoint = ctx.account_key, None, None
    if own is not None and ours:
        key = key or own.key
        sas = own.sas if key is None else None
        endpoint = own.endpoint
        if key is None and sas is None and not own.login:
            raise ConfigError(f"Azure storage needs the key of the account {name}: set AZURE_STORAGE_KEY")
    elif key is None:
        raise _no_key("Azure account", name)
    if key is not None and (text := key_problem(key)):
        raise InvalidJob(f"ctx.storage.accountKey {text}")
    place = AzurePlace(
        account=name,
        key=key,
        sas=sas,
        endpoint=endpoint or f"https://{name}.blob.core.windows.net",
        container=_container("azure", ctx, settings),
    )
    return place, ours or own is None


def _s3(ctx: JobContext, settings: StorageSettings) -> tuple[Place, bool]:
    """An account of S3 is known by its access key id, which a job gives as ``accountName``."""
    own, key_id = settings.s3, ctx.account_name
    ours = key_id is None or (own is not None and own.key_id == key_id)
    if not ours:
        if ctx.account_key is None:
            raise _no_key("S3 access key id", key_id or "")
        if text := key_id_problem(key_id or ""):
            raise InvalidJob(f"ctx.storage.accountName {text}")
        region = own.region if own is not None and own.endpoint is None else "us-east-1"  # boto3 is told the right one
        account = S3Account(key_id=key_id, secret=ctx.account_key, region=region)
    elif own is None:
        raise ConfigError(
            "the job asks for S3 storage and brings no account (storage.accountName, storage.accountKey), and this "
            "worker has none: set CLOUD_STORAGE_PROVIDER=s3, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    elif ctx.account_key is not None and ctx.account_key != own.secret:
        raise InvalidJob("the job's ctx has storage.accountKey for S3 and no storage.accountName of its own with it")
    else:
        account = own
    return S3Place(account=account, bucket=_container("s3", ctx, settings)), ours


def _gcs(ctx: JobContext, settings: StorageSettings) -> tuple[Place, bool]:
    if ctx.account_name is not None or ctx.account_key is not None:
        raise InvalidJob(
            "the job's ctx names an account for Google storage (storage.accountName or accountKey), and jobs can't "
            "bring Google credentials; this worker's own are used for jobs that name no account",
            reason="unsupported_operation",
        )
    if settings.gcs is None:
        raise ConfigError(
            "the job asks for Google storage, and this worker has no account there: set CLOUD_STORAGE_PROVIDER=gcs or "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    place = GcsPlace(
        credentials=settings.gcs.credentials,
        endpoint=settings.gcs.endpoint,
        bucket=_container("gcs", ctx, settings),
    )
    return place, True


def _no_key(what: str, name: str) -> InvalidJob:
    return InvalidJob(
        f"the job's ctx names the {what} {name} and brings no key for it (storage.accountKey); "
        "this worker's own key is used for its own account only"
    )


def _container(provider: Provider, ctx: JobContext, settings: StorageSettings) -> str:
    name = ctx.bucket or settings.container
    if name is None:
        raise ConfigError(
            "storage needs a container or bucket: neither the job's ctx (storage.bucket) nor CLOUD_STORAGE_CONTAINER "
            "in this worker's environment names one"
        )
    if text := place_problem(provider, name):
        raise InvalidJob(f"the container (ctx.storage.bucket): {text}")
    return name
