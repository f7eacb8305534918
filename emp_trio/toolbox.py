"""What the worker gives every connector beside its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from emp_trio.jobs import Job, SavedAsset
from emp_trio.progress import ProgressReporter


class AssetSaving(Protocol):
    """What ``SavesAssets`` needs of the worker: :class:`emp_trio.assets.saver.AssetSaver` has it."""

    def check(self, job: Job) -> None:
        """Raise the error that saving an asset of this job would certainly end in; for before something is paid."""

    async def save(
        self,
        data: Any,
        job: Job,
        progress: ProgressReporter,
        *,
        media_type: str | None = None,
        index: int = 0,
    ) -> SavedAsset:
        """:meth:`emp_trio.assets.saver.AssetSaver.save`."""


class Toolbox(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker gives every connector: the asset saver, the identity it goes by, its environment."""

    assets: AssetSaving
    user_agent: str = "emp-trio"
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
