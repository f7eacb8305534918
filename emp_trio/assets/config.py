"""What the environment says about storage: :func:`storage_settings`. Pure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from emp_trio.assets.accounts import AzureAccount, GcsAccount, S3Account, azure_account, gcs_account, s3_account
from emp_trio.assets.naming import check_segment
from emp_trio.assets.validators import (
    base_url_problem,
    container_problem,
    gcs_bucket_problem,
    header_problem,
    s3_bucket_problem,
    with_scheme,
)
from emp_trio.errors import ConfigError, InvalidJob, Problem
from emp_trio.retry import RetryPolicy
from emp_trio.secrets import Secret, excerpt

Provider = Literal["azure", "s3", "gcs", "local"]

PROVIDERS: Final[dict[str, Provider]] = {
    "azure": "azure",
    "aws": "s3",
    "s3": "s3",
    "google": "gcs",
    "gcs": "gcs",
    "local": "local",
}
"""Names that a job's context or the environment may use; ``aws`` and ``google`` are the fleet's (protocol 5.2)."""


LARGEST_INLINE: Final = 2**20
"""Most bytes of a file that any setting lets into a result: results travel through Redis."""


_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off"})


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
    limit: float = 3.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Storage of a worker. What a job's ``ctx`` says comes before it, field by field (see ``destination``).

    Args:
        provider: where assets go when the job doesn't say; None means that the job must say it.
        container: Azure container or bucket; for the local store a folder inside ``local_path``.
        cdn_url: base of the public addresses, ``https://cdn.example.com[/path]``. It is asked wherever it is.
        cdn_private: whether a CDN that a job names, or that another redirects to, may be in a private network.
        azure, s3, gcs: the worker's own accounts.
        local_path: folder of the local store.
        cache_control: header of every asset; None is a year for generated names and five minutes for chosen ones.
        max_bytes: size of the largest asset.
        inline_bytes: size of the largest file that a result may carry itself, for jobs with ``save_assets: false``.
        uploads: uploads at once, each in a thread of its own.
        connect_timeout, read_timeout: seconds for a connection to the store, and for a silence on it.
        abort_timeout: seconds for telling the store that a cancelled upload is void, where it wants to be told.
        retry: how an upload is repeated within the upload stage. Generous: what it saves has been paid for.
        cdn: the wait for the CDN.
        keep: what becomes of a finished generation whose upload failed.
    """

    provider: Provider | None = None
    container: str | None = None
    cdn_url: str | None = None
    cdn_private: bool = False
    azure: AzureAccount | None = None
    s3: S3Account | None = None
    gcs: GcsAccount | None = None
    local_path: Path | None = None
    cache_control: str | None = None
    max_bytes: int = 2 * 2**30
    inline_bytes: int = 64 * 2**10
    uploads: int = 8
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    abort_timeout: float = 1.0
    retry: RetryPolicy = RetryPolicy(retries=8, base=0.5, cap=15.0)
    cdn: CdnSettings = CdnSettings()
    keep: KeepSettings = KeepSettings()

    @property
    def secrets(self) -> list[Secret]:
        """Everything in here that must not be shown."""
        azure = (self.azure.key, self.azure.sas) if self.azure else ()
        s3 = (self.s3.secret, self.s3.token) if self.s3 else ()
        return [secret for secret in (*azure, *s3) if secret is not None]


def storage_settings(env: Mapping[str, str]) -> StorageSettings:
    """Read ``CLOUD_STORAGE_PROVIDER``, ``CLOUD_STORAGE_CONTAINER``, ``CLOUD_STORAGE_CACHE_CONTROL``, ``CLOUD_CDN_URL``,
    ``CLOUD_CDN_ALLOW_PRIVATE``, ``LOCAL_STORAGE_PATH``, ``EMP_TRIO_KEEP_DIR`` (without it, a folder of this user below
    the system's one for temporary files), ``EMP_TRIO_INLINE_MAX_BYTES``, and the accounts:

    ``AZURE_STORAGE_ACCOUNT``, ``_KEY``, ``_SAS_TOKEN``, ``_AUTH_MODE``, ``_CONNECTION_STRING``, ``_ENDPOINT``;
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``, ``S3_ENDPOINT_URL``;
    ``GOOGLE_APPLICATION_CREDENTIALS``, ``STORAGE_EMULATOR_HOST``.

    A blank variable counts as unset. Nothing set is fine: jobs may bring their own storage, and saving an asset of one
    that doesn't is refused. There is no default place: an asset is never written where nobody asked for it.

    Raises:
        ConfigError: with every problem found.
    """
    problems: list[Problem] = []
    given = {name: value.strip() for name, value in env.items() if value.strip()}

    def wrong(variable: str, message: str, hint: str = "") -> None:
        problems.append(Problem(path=variable, variable=variable, message=message, hint=hint))

    asked = given.get("CLOUD_STORAGE_PROVIDER", "").lower()
    provider = PROVIDERS.get(asked)
    if asked and provider is None:
        wrong("CLOUD_STORAGE_PROVIDER", f"{asked!r} is not a storage provider", "use azure, s3, gcs or local")
    azure = azure_account(given, wrong)
    s3 = s3_account(given, wrong, chosen=provider == "s3")
    gcs = gcs_account(given, wrong, chosen=provider == "gcs")
    container = given.get("CLOUD_STORAGE_CONTAINER")
    if container is not None and provider is not None and (text := place_problem(provider, container)):
        wrong("CLOUD_STORAGE_CONTAINER", text)
    cdn = given.get("CLOUD_CDN_URL")
    if cdn is not None and (text := base_url_problem(with_scheme(cdn))):
        wrong("CLOUD_CDN_URL", text)
    private = given.get("CLOUD_CDN_ALLOW_PRIVATE", "false").lower()
    if private not in _YES | _NO:
        wrong("CLOUD_CDN_ALLOW_PRIVATE", f"is {excerpt(private, 80)!r}, neither true nor false")
    cache_control = given.get("CLOUD_STORAGE_CACHE_CONTROL")
    if cache_control is not None and (text := header_problem(cache_control)):
        wrong("CLOUD_STORAGE_CACHE_CONTROL", text)
    inline = given.get("EMP_TRIO_INLINE_MAX_BYTES", str(StorageSettings().inline_bytes))
    if not (inline.isascii() and inline.isdigit() and int(inline) <= LARGEST_INLINE):
        wrong("EMP_TRIO_INLINE_MAX_BYTES", f"is not a number of bytes from 0 to {LARGEST_INLINE}")
    local = given.get("LOCAL_STORAGE_PATH")
    if provider == "local" and local is None:
        wrong("LOCAL_STORAGE_PATH", "is not set", "CLOUD_STORAGE_PROVIDER=local needs a folder to write to")
    if problems:
        raise ConfigError("the storage settings can't be used", problems=problems)
    return StorageSettings(
        provider=provider,
        container=container,
        cdn_url=cdn,
        cdn_private=private in _YES,
        azure=azure,
        s3=s3,
        gcs=gcs,
        local_path=Path(local).absolute() if local is not None else None,
        cache_control=cache_control,
        inline_bytes=int(inline),
        keep=KeepSettings(folder=Path(given.get("EMP_TRIO_KEEP_DIR") or _default_keep()).absolute()),
    )


def place_problem(provider: Provider, container: str) -> str | None:
    """What is wrong with the name of a container, bucket or folder at a provider."""
    checks: dict[Provider, Callable[[str], str | None]] = {
        "azure": container_problem,
        "s3": s3_bucket_problem,
        "gcs": gcs_bucket_problem,
        "local": _folder_problem,
    }
    return checks[provider](container)


def _folder_problem(name: str) -> str | None:
    try:
        check_segment("the container", name)
    except InvalidJob as error:
        return error.message
    return None


def _default_keep() -> str:
    return f"{tempfile.gettempdir()}/emp-trio-kept-{os.getuid()}"
