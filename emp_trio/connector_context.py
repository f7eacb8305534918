"""What the worker gives every connector beside its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from emp_trio.attempt import AttemptContext
from emp_trio.jobs import Job, SavedAsset


class GeneratedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that a service has made; ``media_type`` is what the service says it is, its bytes count for more."""

    data: bytes
    media_type: str | None = None


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a service has made for a job, as plain values: an attempt can leave it to the next one.

    Attributes:
        files: the outputs in their order.
        data: facts (JSON, no secrets) of which the connector can build the rest of its result again.
    """

    files: tuple[GeneratedFile, ...]
    data: dict[str, Any]


class AssetSaving(Protocol):
    """What ``SavesAssets`` needs of the worker: :class:`emp_trio.assets.storage.AssetStorage` has it."""

    def inline(self, file: GeneratedFile) -> SavedAsset | None:
        """A file as a data URL in place of an address, or None where it is too large for a result."""

    def check(self, job: Job) -> None:
        """Raise the error that saving an asset of this job would certainly end in; for before something is paid."""

    async def save(
        self,
        data: Any,
        job: Job,
        context: AttemptContext,
        *,
        media_type: str | None = None,
        index: int = 0,
    ) -> SavedAsset:
        """:meth:`emp_trio.assets.storage.AssetStorage.save`."""

    async def kept(self, job: Job) -> Generated | None:
        """What an earlier attempt of this job has kept on this machine, or None. Raises as :meth:`check`, knowing more:
        it may ask where a CDN is that the job names."""

    async def keep(self, generated: Generated, job: Job) -> tuple[bool, str]:
        """Keep what could not be saved, for the job's next attempt, in a shielded scope with a limit.

        Returns:
            whether it is kept; and where it is, or why it could not be kept: a sentence for the error.
        """

    async def forget(self, job: Job) -> None:
        """Remove what was kept for this job, in a shielded scope with a limit."""


class ConnectorContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker gives every connector: the asset saver, the identity it goes by, its environment."""

    assets: AssetSaving
    user_agent: str = "emp-trio"
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
