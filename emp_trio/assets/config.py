"""What the environment says about storage: :func:`storage_settings`, and the forms its values must have. Pure."""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from emp_trio.assets.naming import check_segment
from emp_trio.errors import ConfigError, InvalidJob, Problem
from emp_trio.retry import RetryPolicy
from emp_trio.secrets import Secret

Provider = Literal["azure", "local"]

NOT_YET: Final = frozenset({"aws", "s3", "google", "gcs", "gcp"})
"""Providers that the fleet's context knows and this version can't serve."""

_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*|\$root|\$web")


class CdnSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the wait for a CDN goes about it.

    Args:
        probe_timeout: seconds for one request, whatever happens to it.
        first_pause, longest_pause: seconds between probes; doubled from the first to the longest.
        stale_after: wrong answers (404, other content) after which a query that passes the CDN's cache is tried too.
    """

    probe_timeout: float = 5.0
    first_pause: float = 0.2
    longest_pause: float = 4.0
    stale_after: int = 5


class KeepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where finished generations wait on this machine after a failed upload.

    Args:
        folder: for this user alone; None keeps nothing.
        max_bytes: of all that is kept together; the oldest gives way.
        max_age: seconds after which nobody is expected to ask any more.
        limit: seconds for writing one, also while a cancelled job is being cleaned up.
    """

    folder: Path | None = None
    max_bytes: int = 2**30
    max_age: float = 86400.0
    limit: float = 5.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Storage of a worker. What a job's ``ctx`` says comes before it, field by field (see ``destination``).

    Args:
        provider: where assets go when the job doesn't say; None means that the job must say it.
        container: Azure container; for the local store a folder inside ``local_path``.
        cdn_url: base of the public addresses, ``https://cdn.example.com[/path]``.
        azure_account, azure_key: the account and its shared key.
        azure_endpoint: base URL of the blob service, for private clouds and emulators; None is the public cloud.
        local_path: folder of the local store.
        max_bytes: size of the largest asset.
        uploads: uploads at once, each in a thread of its own.
        connect_timeout, read_timeout: seconds for a connection to the store, and for a silence on it.
        retry: how an upload is repeated within the upload stage. Generous: what it saves has been paid for.
        cdn: the wait for the CDN.
        keep: what becomes of a finished generation whose upload failed.
    """

    provider: Provider | None = None
    container: str | None = None
    cdn_url: str | None = None
    azure_account: str | None = None
    azure_key: Secret | None = None
    azure_endpoint: str | None = None
    local_path: Path | None = None
    max_bytes: int = 2 * 2**30
    uploads: int = 8
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    retry: RetryPolicy = RetryPolicy(retries=8, base=0.5, cap=15.0)
    cdn: CdnSettings = CdnSettings()
    keep: KeepSettings = KeepSettings()


def storage_settings(env: Mapping[str, str]) -> StorageSettings:
    """Read ``CLOUD_STORAGE_PROVIDER``, ``CLOUD_STORAGE_CONTAINER``, ``CLOUD_CDN_URL``, ``AZURE_STORAGE_ACCOUNT``,
    ``AZURE_STORAGE_KEY``, ``AZURE_STORAGE_CONNECTION_STRING``, ``AZURE_STORAGE_ENDPOINT``, ``LOCAL_STORAGE_PATH`` and
    ``EMP_TRIO_KEEP_DIR`` (without it, a folder of this user below the system's one for temporary files).

    A blank variable counts as unset. Nothing set is fine: jobs may bring their own storage, and saving an asset of one
    that doesn't is refused. There is no default place: an asset is never written where nobody asked for it.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []
    given = {name: value.strip() for name, value in env.items() if value.strip()}

    def wrong(variable: str, message: str, hint: str = "") -> None:
        problems.append(Problem(path=variable, variable=variable, message=message, hint=hint))

    provider = given.get("CLOUD_STORAGE_PROVIDER", "").lower() or None
    if provider in NOT_YET:
        wrong("CLOUD_STORAGE_PROVIDER", f"{provider} is not in this version", "use azure or local")
    elif provider not in (None, "azure", "local"):
        wrong("CLOUD_STORAGE_PROVIDER", f"{provider!r} is not a storage provider", "use azure or local")

    account, key, endpoint = _azure(given, wrong)
    container = given.get("CLOUD_STORAGE_CONTAINER")
    if container is not None and provider == "azure" and (text := container_problem(container)):
        wrong("CLOUD_STORAGE_CONTAINER", text)
    if container is not None and provider == "local":
        try:
            check_segment("the name", container)
        except InvalidJob as error:
            wrong("CLOUD_STORAGE_CONTAINER", error.message)
    cdn = given.get("CLOUD_CDN_URL")
    if cdn is not None and (text := base_url_problem(with_scheme(cdn))):
        wrong("CLOUD_CDN_URL", text)
    local = given.get("LOCAL_STORAGE_PATH")
    if provider == "local" and local is None:
        wrong("LOCAL_STORAGE_PATH", "is not set", "CLOUD_STORAGE_PROVIDER=local needs a folder to write to")
    if problems:
        raise ConfigError("the storage settings can't be used", problems=problems)
    return StorageSettings(
        provider="azure" if provider == "azure" else "local" if provider == "local" else None,
        container=container,
        cdn_url=cdn,
        azure_account=account,
        azure_key=key,
        azure_endpoint=endpoint,
        local_path=Path(local).absolute() if local is not None else None,
        keep=KeepSettings(folder=Path(given.get("EMP_TRIO_KEEP_DIR") or _default_keep()).absolute()),
    )


def _default_keep() -> str:
    return f"{tempfile.gettempdir()}/emp-trio-kept-{os.getuid()}"


def account_problem(account: str) -> str | None:
    """What is wrong with the name of an Azure account. It becomes part of a host name, so nothing else may pass."""
    if _ACCOUNT.fullmatch(account):
        return None
    return f"{account[:80]!r} is not an Azure account: 3 to 24 lower-case letters and digits"


def container_problem(container: str) -> str | None:
    """What is wrong with the name of an Azure container."""
    if _CONTAINER.fullmatch(container):
        return None
    return f"{container[:80]!r} is not an Azure container: 3 to 63 lower-case letters, digits and single hyphens"


def key_problem(key: Secret) -> str | None:
    """What is wrong with an Azure account key (which is not shown)."""
    try:
        base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError):
        return "is not an Azure account key: those are base64"
    return None


def base_url_problem(url: str) -> str | None:
    """What is wrong with a base URL to which keys are appended."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\x00-\x20\x7f\\]", url):
        return "is not an http or https URL"
    if parts.username is not None or parts.password is not None:
        return "holds credentials, which would end up in every result"
    if "?" in url or "#" in url:
        return "has a query or fragment, and keys are appended to it"
    return None


def with_scheme(base: str) -> str:
    """A CDN base with ``https://`` in front unless it has a scheme, and without a slash at its end."""
    return (base if "://" in base else f"https://{base}").rstrip("/")


def _azure(given: Mapping[str, str], wrong: Callable[..., None]) -> tuple[str | None, Secret | None, str | None]:
    """Account, key and endpoint: single variables first, then the connection string of the same account."""
    variable = "AZURE_STORAGE_CONNECTION_STRING"
    parts = dict(part.split("=", 1) for part in given.get(variable, "").split(";") if "=" in part)
    account, key = given.get("AZURE_STORAGE_ACCOUNT"), given.get("AZURE_STORAGE_KEY")
    endpoint = given.get("AZURE_STORAGE_ENDPOINT")
    if variable in given:
        if "AccountName" not in parts or "AccountKey" not in parts:
            wrong(
                variable, "has no AccountName and AccountKey", "signed URLs and development storage are not supported"
            )
        elif account is not None and account != parts["AccountName"]:
            wrong(variable, "is of another account than AZURE_STORAGE_ACCOUNT", "unset one of them")
        account, key = account or parts.get("AccountName"), key or parts.get("AccountKey")
        if endpoint is None and "BlobEndpoint" in parts:
            endpoint = parts["BlobEndpoint"]
        elif endpoint is None and account and "EndpointSuffix" in parts:
            endpoint = f"{parts.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{parts['EndpointSuffix']}"
    elif (account is None) != (key is None):
        missing, other = ("AZURE_STORAGE_ACCOUNT", "KEY") if account is None else ("AZURE_STORAGE_KEY", "ACCOUNT")
        wrong(missing, f"is not set although AZURE_STORAGE_{other} is")
    if account is not None and (text := account_problem(account)):
        wrong("AZURE_STORAGE_ACCOUNT" if "AZURE_STORAGE_ACCOUNT" in given else variable, text)
    secret = Secret(key) if key is not None else None
    if secret is not None and (text := key_problem(secret)):
        wrong("AZURE_STORAGE_KEY" if "AZURE_STORAGE_KEY" in given else variable, text)
    if endpoint is not None and (text := base_url_problem(endpoint)):
        wrong("AZURE_STORAGE_ENDPOINT" if "AZURE_STORAGE_ENDPOINT" in given else variable, text)
    return account, secret, endpoint.rstrip("/") if endpoint is not None else None
