"""The storage provider interface, :class:`Provider`.

Each provider is a package in :mod:`emp_trio.assets.stores.providers`, where
:func:`~emp_trio.assets.stores.registry.providers` finds it; no other module names one.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from emp_trio.assets.stores import AssetStore
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.secrets import Secret

ReportProblem = Callable[..., None]
"""Takes a variable of the environment, what is wrong with it, and what to do."""


class Account(Protocol):
    """What the worker's environment says about one provider: credentials, addresses, folders."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything in it that must not be shown."""


class StoreTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a store is given.

    Args:
        connect, read: for a connection, and for a silence on it.
        abort: for hearing that a cancelled upload is void, where it wants to be told.
    """

    connect: float
    read: float
    abort: float


AccountT = TypeVar("AccountT", bound=Account)
LocationT = TypeVar("LocationT")


class Provider(Protocol[AccountT, LocationT]):
    """A kind of storage. ``AccountT`` is what the environment says about it, ``LocationT`` one container, bucket or
    folder with all that it takes to use it: a frozen value, by which open stores are found again.

    Attributes:
        name: as in ``CLOUD_STORAGE_PROVIDER``; also the extra of the package that brings its library.
        aliases: other names that the environment and jobs use for it, in lower case.
    """

    name: str
    aliases: tuple[str, ...]

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> AccountT | None:
        """The worker's own account.

        Args:
            env: the environment without its blanks.
            report: told of every problem.
            chosen: whether the worker stores here. If not, variables that are there for another purpose may be
                incomplete.

        Returns:
            None where the environment names no account.
        """

    def check_name(self, container: str) -> str | None:
        """What is wrong with the name of a container, or None."""

    def location_for(self, ctx: JobContext, account: AccountT | None, container: str | None) -> tuple[LocationT, bool]:
        """Where a job's assets go. Pure.

        Args:
            account: the worker's own. It is used for jobs that name no other.
            container: of the job or the environment; its name is fine.

        Returns:
            the location, and whether it is the worker's own account.

        Raises:
            InvalidJob: the job asks for what no worker would do, such as another account without its key.
            ConfigError: neither the job nor the environment says something that is needed.
        """

    def requires(self, location: LocationT, ctx: JobContext) -> None:
        """Look whether this machine can use a location, without importing anything or talking to anybody.

        Raises:
            InvalidJob, ConfigError: it can't, and whose doing that is.
        """

    def load(self) -> None:
        """Import what :meth:`open` needs. May block for half a second.

        Raises:
            ModuleNotFoundError: the provider's library is not installed.
        """

    def open(self, location: LocationT, timeouts: StoreTimeouts) -> AssetStore:
        """The store for a location. Blocks as :meth:`load` does, and may ask the machine for credentials.

        Raises:
            AssetError: there are no credentials that could be used.
        """


def required_container(container: str | None) -> str:
    """The name of the container; ConfigError where neither the job nor the environment gives one."""
    if container is None:
        raise ConfigError(
            "storage needs a container or bucket: neither the job's ctx (storage.bucket) nor CLOUD_STORAGE_CONTAINER "
            "in this worker's environment names one"
        )
    return container


def missing_key(account: str) -> InvalidJob:
    """The error of a job that names somebody else's account without its key."""
    return InvalidJob(
        f"the job's ctx names the {account} and brings no key for it (storage.accountKey); "
        "this worker's own key is used for its own account only"
    )


def require_module(module: str, *, extra: str) -> None:
    """Raise ConfigError where a library is not installed. Nothing is imported."""
    if not _installed(module):
        raise ConfigError(f"this storage needs {module}, which is not installed: pip install 'emp-trio[{extra}]'")


@functools.cache
def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
