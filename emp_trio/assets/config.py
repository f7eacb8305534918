"""Read the storage settings from the environment: :func:`storage_settings`. Pure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from emp_trio.assets.stores.provider import Account
from emp_trio.assets.stores.registry import find_provider, provider_names, providers
from emp_trio.assets.validators import base_url_problem, header_problem, with_scheme
from emp_trio.errors import ConfigError, Problem
from emp_trio.retry import RetryPolicy
from emp_trio.secrets import Secret, excerpt

LARGEST_INLINE: Final = 2**20
"""Upper limit of the setting for inline files, in bytes, because results go through Redis."""


_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off"})


class CdnSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the wait for a CDN.

    Args:
        probe_timeout: seconds per request.
        first_pause, longest_pause: seconds between probes, doubled from the first to the longest.
        stale_after: number of wrong responses (404, other content) before a query bypasses the CDN's cache.
    """

    probe_timeout: float = 5.0
    first_pause: float = 0.2
    longest_pause: float = 4.0
    stale_after: int = 5


class KeepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the spool for generations whose upload failed.

    Args:
        folder: folder that only this user can access; None disables the spool.
        max_bytes: maximum total size; the oldest files are removed first.
        max_age: seconds until a file is removed.
        limit: maximum seconds to write a generation, also during the cleanup of a cancelled job.
    """

    folder: Path | None = None
    max_bytes: int = 2**30
    max_age: float = 86400.0
    limit: float = 3.0


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Storage settings of a worker. A job's ``ctx`` takes precedence, field by field (see ``destination``).

    Args:
        provider: default provider; None requires jobs to name one.
        container: default container or bucket; for the local provider a folder inside ``LOCAL_STORAGE_PATH``.
        cdn_url: base of public URLs, ``https://cdn.example.com[/path]``. May be in a private network.
        cdn_private: whether a CDN that a job names, or the target of a redirect, may be in a private network.
        accounts: the worker's accounts, by provider name.
        cache_control: Cache-Control of every asset; None: a year for generated names, five minutes for chosen names.
        max_bytes: maximum size of an asset.
        inline_bytes: maximum size of a file in a result, for jobs with ``save_assets: false``.
        uploads: maximum concurrent uploads; each uses a thread.
        connect_timeout, read_timeout: seconds to connect to the store, and to wait for data from it.
        abort_timeout: seconds to abort a cancelled upload at the store.
        retry: retries of an upload within the upload stage; many, because the work is already paid for.
        cdn: settings of the wait for the CDN.
        keep: settings of the spool.
    """

    provider: str | None = None
    container: str | None = None
    cdn_url: str | None = None
    cdn_private: bool = False
    accounts: Mapping[str, Account] = msgspec.field(default_factory=dict)
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
        """Return all secrets in these settings."""
        return [secret for account in self.accounts.values() for secret in account.secrets]


def storage_settings(env: Mapping[str, str]) -> StorageSettings:
    """Read ``CLOUD_STORAGE_PROVIDER``, ``CLOUD_STORAGE_CONTAINER``, ``CLOUD_STORAGE_CACHE_CONTROL``, ``CLOUD_CDN_URL``,
    ``CLOUD_CDN_ALLOW_PRIVATE``, ``EMP_TRIO_KEEP_DIR`` (without it, a folder of this user below the system's one for
    temporary files), ``EMP_TRIO_INLINE_MAX_BYTES``, and the variables of each provider's account
    (:mod:`emp_trio.assets.stores.providers`).

    A blank variable counts as unset. All variables are optional: jobs may name their own storage, and saving fails for
    a job that does not. There is no default destination.

    Raises:
        ConfigError: variables are invalid; ``problems`` lists all of them.
    """
    problems: list[Problem] = []
    given = {name: value.strip() for name, value in env.items() if value.strip()}

    def wrong(variable: str, message: str, hint: str = "") -> None:
        problems.append(Problem(path=variable, variable=variable, message=message, hint=hint))

    requested = given.get("CLOUD_STORAGE_PROVIDER", "").lower()
    chosen = find_provider(requested)
    if requested and chosen is None:
        wrong("CLOUD_STORAGE_PROVIDER", f"{requested!r} is not a storage provider", f"use {provider_names()}")
    accounts = {
        name: account
        for name, provider in providers().items()
        if (account := provider.from_env(given, wrong, chosen=provider is chosen)) is not None
    }
    container = given.get("CLOUD_STORAGE_CONTAINER")
    if container is not None and chosen is not None and (text := chosen.check_name(container)):
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
    if problems:
        raise ConfigError("the storage settings can't be used", problems=problems)
    return StorageSettings(
        provider=chosen.name if chosen is not None else None,
        container=container,
        cdn_url=cdn,
        cdn_private=private in _YES,
        accounts=accounts,
        cache_control=cache_control,
        inline_bytes=int(inline),
        keep=KeepSettings(folder=Path(given.get("EMP_TRIO_KEEP_DIR") or _default_keep()).absolute()),
    )


def _default_keep() -> str:
    return f"{tempfile.gettempdir()}/emp-trio-kept-{os.getuid()}"
