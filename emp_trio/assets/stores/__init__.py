"""Asset stores: one synchronous class per provider, behind the protocol :class:`AssetStore`.

AssetStorage calls them in threads (:mod:`~emp_trio.assets.stores.blocking`). A
:class:`~emp_trio.assets.stores.provider.Provider` opens them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from emp_trio.errors import AssetError
from emp_trio.failures import FailureType

if TYPE_CHECKING:
    from emp_trio.assets.stores.blocking import CancelToken, Reader


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of an object to store.

    Attributes:
        key: name in the container.
        media_type, cache_control: headers to serve it with.
        size, sha256: size in bytes and hexadecimal digest.
        owner, workflow: marks of its job and workflow (``naming.owner_mark``).
    """

    key: str
    media_type: str
    cache_control: str
    size: int
    sha256: str
    owner: str
    workflow: str | None = None

    @property
    def notes(self) -> dict[str, str]:
        """Return the metadata of the object."""
        notes = {"job_id": self.owner, "sha256": self.sha256}
        return notes if self.workflow is None else notes | {"workflow_id": self.workflow}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A stored object.

    ``sha256``, ``owner`` and ``workflow`` are None if another program wrote it. ``version`` identifies its state (an
    ETag).
    """

    size: int
    sha256: str | None = None
    owner: str | None = None
    workflow: str | None = None
    version: str | None = None


class AssetStore(Protocol):
    """A container, bucket or folder. Methods block, and are thread-safe.

    They raise only AssetError and ``trio.Cancelled``.
    """

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """Return the object under ``key``, or None."""

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Store ``body`` atomically.

        Args:
            over: result of :meth:`head`; if the object has changed since, raise a retryable error.
            cancel: receives the callback that ends this call early.
        """

    def url(self, key: str) -> str:
        """Return the URL of ``key`` at the store."""

    def close(self) -> None:
        """Close all connections; those in use when their call ends."""


def storage_failure(
    what: str, *, hint: str = "", type: FailureType, reason: str, retry: bool, retry_after: float | None = None
) -> AssetError:
    """Build an AssetError whose message has the problem, a hint, and that the generation itself succeeded."""
    text = f"{what}. {hint}" if hint else what
    return AssetError(
        f"{text}{'' if text.endswith('?') else '.'} The generation itself had succeeded and is paid for",
        paid=True,
        type=type,
        reason=reason,
        retry=retry,
        retry_after=retry_after,
    )
