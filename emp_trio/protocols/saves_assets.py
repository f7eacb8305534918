"""``SavesAssets``: a connector that puts what it makes into storage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import ConnectorContext, Generated, GeneratedFile
from emp_trio.errors import AssetError, DeadlineExceeded
from emp_trio.jobs import Job, SavedAsset

__all__ = ["Generated", "GeneratedFile", "SavesAssets"]

log = structlog.get_logger(__name__)


class SavesAssets:
    """gives a connector the methods ``save_asset``, ``generated`` and ``save_generated``; the storage itself belongs to
    the worker.

    A service that takes money for what it makes is asked through ``generated``, and what it made is saved by
    ``save_generated``: then an upload that fails costs the job an attempt, and nobody a second generation.
    """

    connector_context: ConnectorContext

    async def save_asset(
        self,
        data: Any,
        job: Job,
        context: AttemptContext,
        *,
        media_type: str | None = None,
        index: int = 0,
    ) -> SavedAsset:
        """Upload one output of a job, verify it, and wait for the CDN.

        Args:
            data: bytes, base64 text, a data URL, or a stream, as :class:`emp_trio.assets.saver.AssetSaver` takes them.
            job: names the asset; a retry of the job finds its own earlier upload.
            context: runs the upload and cdn stages.
            media_type: what the service says it is; the bytes are looked at first.
            index: which output of the job this is, from 0.

        Raises:
            AssetError: storage or CDN failed; the generation itself had succeeded.
            DeadlineExceeded: the upload or cdn stage ran out of time.

        A cancelled upload leaves nothing visible.
        """
        return await self.connector_context.assets.save(data, job, context, media_type=media_type, index=index)

    async def generated(self, job: Job, context: AttemptContext, make: Callable[[], Awaitable[Generated]]) -> Generated:
        """What a service makes for this job: what an earlier attempt kept on this machine, else ``await make()``.

        Args:
            job: an earlier attempt counts if it had the same type, payload and workflow retry number.
            context: told when nothing has to be made.
            make: asks the service, and returns what it made before anything of it is saved.

        Raises:
            InvalidJob, ConfigError: nothing of this job could be saved; ``make`` was not called.
            Exception: whatever ``make`` raises.
        """
        kept = await self.connector_context.assets.kept(job)
        if kept is None:
            return await make()
        context.report(0, "uploading what an earlier attempt has generated")
        log.info("kept.found", job_id=job.id, files=len(kept.files))
        return kept

    async def save_generated(self, generated: Generated, job: Job, context: AttemptContext) -> list[SavedAsset]:
        """Save every file, as output 0 and up. What can't be saved is kept on this machine for the next attempt.

        The one small file of a job with ``save_assets: false`` is not stored but goes into the result as a data URL.

        Returns:
            the saved assets in the order of the files; nothing is kept any more.

        Raises:
            AssetError, DeadlineExceeded: as :meth:`save_asset`; the text also says where the files are kept.
            trio.Cancelled: after the files were kept, or, where ``context.stop_remote_work`` says that nobody wants
                them any more, after those of an earlier attempt were removed. Both are shielded and limited.
        """
        assets = self.connector_context.assets
        if job.payload.get("save_assets") is False and len(generated.files) == 1:
            inline = assets.inline(generated.files[0])
            if inline is not None:
                await assets.forget(job)
                return [inline]
            log.info("asset.too_large_for_result", job_id=job.id, size=len(generated.files[0].data))
        try:
            saved = [
                await self.save_asset(file.data, job, context, media_type=file.media_type, index=index)
                for index, file in enumerate(generated.files)
            ]
        except AssetError as error:
            kept, where = await assets.keep(generated, job)
            raise AssetError(
                f"{error.message}. {where}",
                paid=error.paid,
                type=error.type,
                reason=error.reason,
                retry=error.retry or kept,  # another attempt costs nothing, and somebody may mend the store meanwhile
                retry_after=error.retry_after,
            ) from error
        except DeadlineExceeded as late:
            text = f"{late.detail}. The generation itself had succeeded and is paid for. "
            _, where = await assets.keep(generated, job)
            raise DeadlineExceeded(late.stage, late.seconds, text + where) from late
        except BaseException as error:
            if not isinstance(error, Exception):  # Cancelled, or a group of nothing else
                if context.stop_remote_work:
                    await assets.forget(job)
                else:
                    _, where = await assets.keep(generated, job)
                    log.info("kept.cancelled", job_id=job.id, what=where)
            raise
        await assets.forget(job)
        return saved
