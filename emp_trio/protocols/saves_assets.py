"""``AssetSaver``: puts what a connector makes into the storage of the worker, and keeps what can't be put there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import AssetSaving, Generated, GeneratedFile
from emp_trio.errors import AssetError, DeadlineExceeded
from emp_trio.jobs import Job, JobResult, SavedAsset
from emp_trio.offload import off_loop, weight
from emp_trio.protocols.part import ConnectorPart

__all__ = ["SAVING", "AssetSaver", "Generated", "GeneratedFile", "SavesAssets"]

log = structlog.get_logger(__name__)

SAVING: Final = 90.0
"""Progress, in percent, at which a job's files begin to be saved."""


class AssetSaver:
    """Saves what jobs make.

    Args:
        storage: that of the worker.
    """

    def __init__(self, storage: AssetSaving) -> None:
        self._storage = storage

    async def produce(
        self,
        job: Job,
        context: AttemptContext,
        *,
        make: Callable[[], Awaitable[Generated]],
        result: Callable[[dict[str, Any], list[SavedAsset]], JobResult],
        expects_files: bool = True,
    ) -> JobResult:
        """Run a job of a service that takes money or time for what it makes: an upload that fails costs the job an
        attempt, and nobody a second generation.

        The storage is checked before anything is made. What an earlier attempt made and could not save, with the same
        type, payload and workflow retry number, is used in place of a new generation. Every file is saved, as output 0
        and up, or kept on this machine for the next attempt. The one small file of a job with ``save_assets: false`` is
        not stored but goes into the result as a data URL.

        Args:
            make: asks the service, and returns all that it made before any of it is saved.
            result: builds the result of ``Generated.data`` and the saved files, in their order. A pure function; it
                runs in a thread where there is much to do.
            expects_files: whether there will be files. If not, the storage is not checked; files that come all the same
                are saved.

        Raises:
            InvalidJob, ConfigError: nothing of this job could be saved; ``make`` was not called.
            AssetError, DeadlineExceeded: as :meth:`save`; the text also says where the files are kept.
            Exception: whatever ``make`` raises.
            trio.Cancelled: in the upload after the files were kept, or, where ``context.stop_remote_work`` says that
                nobody wants them any more, after those of an earlier attempt were removed; both shielded and limited.
        """
        if expects_files:
            self._storage.check(job)
        generated = await self._storage.kept(job)
        if generated is None:
            generated = await make()
        else:
            context.report(0, "uploading what an earlier attempt has generated")
            log.info("kept.found", job_id=job.id, files=len(generated.files))
        if generated.files:
            context.report(SAVING, "saving the result")
        saved = await _save_or_keep(self._storage, generated, job, context)
        context.report(100, "done")
        return await off_loop(weight((generated.data, job.payload)), result, generated.data, saved)

    def check(self, job: Job) -> None:
        """Look whether an asset of this job could be saved, without asking anybody. :meth:`produce` does it; whoever
        saves by :meth:`save` alone does it before anything is made.

        Raises:
            InvalidJob, ConfigError: as :meth:`save` certainly would.
        """
        self._storage.check(job)

    async def save(
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
            data: bytes, base64 text, a data URL, or a stream, as :class:`~emp_trio.assets.storage.AssetStorage` takes
                them.
            job: names the asset; a retry of the job finds its own earlier upload.
            context: runs the upload and cdn stages.
            media_type: what the service says it is; the bytes are looked at first.
            index: which output of the job this is, from 0.

        Raises:
            AssetError: storage or CDN failed; the generation itself had succeeded.
            DeadlineExceeded: the upload or cdn stage ran out of time.

        A cancelled upload leaves nothing visible.
        """
        return await self._storage.save(data, job, context, media_type=media_type, index=index)


async def _save_or_keep(
    storage: AssetSaving, generated: Generated, job: Job, context: AttemptContext
) -> list[SavedAsset]:
    """Save every file. What can't be saved is kept for the next attempt; when all is saved, nothing is kept."""
    if job.payload.get("save_assets") is False and len(generated.files) == 1:
        inline = storage.inline(generated.files[0])
        if inline is not None:
            await storage.forget(job)
            return [inline]
        log.info("asset.too_large_for_result", job_id=job.id, size=len(generated.files[0].data))
    try:
        saved = [
            await storage.save(file.data, job, context, media_type=file.media_type, index=index)
            for index, file in enumerate(generated.files)
        ]
    except AssetError as error:
        kept, where = await storage.keep(generated, job)
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
        _, where = await storage.keep(generated, job)
        raise DeadlineExceeded(late.stage, late.seconds, text + where) from late
    except BaseException as error:
        if not isinstance(error, Exception):  # Cancelled, or a group of nothing else
            if context.stop_remote_work:
                await storage.forget(job)
            else:
                _, where = await storage.keep(generated, job)
                log.info("kept.cancelled", job_id=job.id, what=where)
        raise
    await storage.forget(job)
    return saved


class SavesAssets(ConnectorPart):
    """Attaches ``self.assets``; the storage itself belongs to the worker."""

    assets: AssetSaver

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Entered when the connector starts."""
        self.assets = AssetSaver(self.connector_context.assets)
        yield
