"""``SavesAssets``: a connector that puts what it makes into storage."""

from __future__ import annotations

from typing import Any

from emp_trio.jobs import Job, SavedAsset
from emp_trio.progress import ProgressReporter
from emp_trio.toolbox import Toolbox


class SavesAssets:
    """Gives a connector the verb ``save_asset``; the storage itself belongs to the worker."""

    toolbox: Toolbox

    async def save_asset(
        self,
        data: Any,
        job: Job,
        progress: ProgressReporter,
        *,
        media_type: str | None = None,
        index: int = 0,
    ) -> SavedAsset:
        """Upload one output of a job, verify it, and wait for the CDN.

        Args:
            data: bytes, base64 text, a data URL, or a stream, as :class:`emp_trio.assets.saver.AssetSaver` takes them.
            job: names the asset; a retry of the job finds its own earlier upload.
            progress: runs the upload and cdn stages.
            media_type: what the service says it is; the bytes are looked at first.
            index: which output of the job this is, from 0.

        Raises:
            AssetError: storage or CDN failed; the generation itself had succeeded.
            DeadlineExceeded: the upload or cdn stage ran out of time.

        A cancelled upload leaves nothing visible.
        """
        return await self.toolbox.assets.save(data, job, progress, media_type=media_type, index=index)
