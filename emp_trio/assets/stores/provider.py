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
"""Called with an environment variable, its problem, and a hint."""


class Account(Protocol):
    """The worker's account at a provider, from the environment: credentials, addresses, folders."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Return its secrets."""


class StoreTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts of a store, in seconds.

    Args:
        connect, read: to connect, and to wait for data.
        abort: to abort a cancelled upload at the store.
    """

    connect: float
    read: float
    abort: float


AccountT = TypeVar("AccountT", bound=Account)
LocationT = TypeVar("LocationT")


class Provider(Protocol[AccountT, LocationT]):
    """A storage provider.

    ``AccountT`` is the worker's account from the environment. ``LocationT`` is a container, bucket or folder with its
    credentials: a frozen value, used as the key of open stores.

    Attributes:
        name: value of ``CLOUD_STORAGE_PROVIDER``, and the package extra with its library.
        aliases: other names in the environment and in jobs, in lower case.
    """

    name: str
    aliases: tuple[str, ...]

    def from_env(self, env: Mapping[str, str], report: ReportProblem, *, chosen: bool) -> AccountT | None:
        """Return the worker's account, or None if the environment has none.

        Args:
            env: the environment without blank variables.
            report: called with each problem.
            chosen: whether it is the worker's provider. If not, incomplete variables are ignored: they may serve
                another purpose.
        """

    def check_name(self, container: str) -> str | None:
        """Return the problem of a container name, or None."""

    def location_for(self, ctx: JobContext, account: AccountT | None, container: str | None) -> tuple[LocationT, bool]:
        """Return the location of a job's assets. Pure.

        Args:
            account: the worker's account, for jobs that name no other.
            container: valid container name of the job or the environment.

        Returns:
            the location, and whether it is the worker's own account.

        Raises:
            InvalidJob: the job's request is not allowed, such as another account without its key.
            ConfigError: a required value is missing in both the job and the environment.
        """

    def requires(self, location: LocationT, ctx: JobContext) -> None:
        """Check that this machine can use a location, without imports or network access.

        Raises:
            InvalidJob: it can't, because of the job.
            ConfigError: it can't, because of the worker's configuration.
        """

    def load(self) -> None:
        """Import the libraries that :meth:`open` needs. May block for half a second.

        Raises:
            ModuleNotFoundError: the provider's library is not installed.
        """

    def open(self, location: LocationT, timeouts: StoreTimeouts) -> AssetStore:
        """Open the store for a location. Blocks like :meth:`load`; may fetch credentials from the machine.

        Raises:
            AssetError: there are no usable credentials.
        """


def required_container(container: str | None) -> str:
    """Return the container name. Raise ConfigError if neither the job nor the environment has one."""
    if container is None:
        raise ConfigError(
            "storage needs a container or bucket: neither the job's ctx (storage.bucket) nor CLOUD_STORAGE_CONTAINER "
            "in this worker's environment names one"
        )
    return container


def missing_key(account: str) -> InvalidJob:
    """Return the error for a job that names another account without its key."""
    return InvalidJob(
        f"the job's ctx names the {account} and brings no key for it (storage.accountKey); "
        "this worker's own key is used for its own account only"
    )


def require_module(module: str, *, extra: str) -> None:
    """Raise ConfigError if a library is not installed, without importing it."""
    if not _installed(module):
        raise ConfigError(f"this storage needs {module}, which is not installed: pip install 'emp-trio[{extra}]'")


@functools.cache
def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package
        return False
