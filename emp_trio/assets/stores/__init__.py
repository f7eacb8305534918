"""Asset stores: one synchronous class per provider, behind the protocol :class:`AssetStore`.

The saver calls them in threads (:mod:`~emp_trio.assets.stores.blocking`). A
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
    """What is to be stored, and what is remembered with it.

    Attributes:
        key: name inside the container.
        media_type, cache_control: headers under which it is to be served.
        size, sha256: measure of its bytes.
        owner, workflow: marks of the job and the workflow it belongs to (``naming.owner_mark``).
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
        """What a store keeps as the metadata of an object."""
        notes = {"job_id": self.owner, "sha256": self.sha256}
        return notes if self.workflow is None else notes | {"workflow_id": self.workflow}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at a key. ``sha256``, ``owner`` and ``workflow`` are None where nobody has written them down: another
    program has put it there. ``version`` names this very state of it (an ETag)."""

    size: int
    sha256: str | None = None
    owner: str | None = None
    workflow: str | None = None
    version: str | None = None


class AssetStore(Protocol):
    """One container, bucket or folder. The methods block and may be called from several threads at once.

    They raise AssetError and nothing else; ``trio.Cancelled`` passes through them.
    """

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """What lies at ``key``, or None."""

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Store ``body`` so that it appears at once and whole, or not at all.

        Args:
            over: what :meth:`head` saw at the key. It is refused (retryable) if that has changed.
            cancel: gets whatever ends this call early.
        """

    def url(self, key: str) -> str:
        """The address of ``key`` at the store itself."""

    def close(self) -> None:
        """Give up connections; those in use are given up when their call ends."""


def storage_failure(
    what: str, *, hint: str = "", type: FailureType, reason: str, retry: bool, retry_after: float | None = None
) -> AssetError:
    """An AssetError in the words that all stores use: what went wrong, what to do, and that the work itself is done."""
    text = f"{what}. {hint}" if hint else what
    return AssetError(
        f"{text}{'' if text.endswith('?') else '.'} The generation itself had succeeded and is paid for",
        paid=True,
        type=type,
        reason=reason,
        retry=retry,
        retry_after=retry_after,
    )
