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
        provider: name of the provider that assets go to when the job doesn't say; None means that the job must say it.
        container: container or bucket; for the local store a folder inside ``LOCAL_STORAGE_PATH``.
        cdn_url: base of the public addresses, ``https://cdn.example.com[/path]``. It is asked wherever it is.
        cdn_private: whether a CDN that a job names, or that another redirects to, may be in a private network.
        accounts: the worker's own, by the name of their provider.
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
        """Everything in here that must not be shown."""
        return [secret for account in self.accounts.values() for secret in account.secrets]


def storage_settings(env: Mapping[str, str]) -> StorageSettings:
    """Read ``CLOUD_STORAGE_PROVIDER``, ``CLOUD_STORAGE_CONTAINER``, ``CLOUD_STORAGE_CACHE_CONTROL``, ``CLOUD_CDN_URL``,
    ``CLOUD_CDN_ALLOW_PRIVATE``, ``EMP_TRIO_KEEP_DIR`` (without it, a folder of this user below the system's one for
    temporary files), ``EMP_TRIO_INLINE_MAX_BYTES``, and the variables of each provider's account
    (:mod:`emp_trio.assets.stores.providers`).

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
    chosen = find_provider(asked)
    if asked and chosen is None:
        wrong("CLOUD_STORAGE_PROVIDER", f"{asked!r} is not a storage provider", f"use {provider_names()}")
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
