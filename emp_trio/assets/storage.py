"""Save assets: collect, name, upload, verify, and wait for the CDN."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from emp_trio.assets.cdn import Expected, WaitLog, Way, public_url, wait_for_cdn
from emp_trio.assets.config import StorageSettings
from emp_trio.assets.content import Content, gathered
from emp_trio.assets.destination import Destination, destination, is_own_cdn
from emp_trio.assets.inline import inline_asset
from emp_trio.assets.media import media_type as type_of
from emp_trio.assets.naming import asset_name, check_names, owner_mark
from emp_trio.assets.spool import GenerationSpool
from emp_trio.assets.stores import AssetStore, Blob, Stored, storage_failure
from emp_trio.assets.stores.blocking import CancelToken, Reader, in_thread
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.registry import find_provider
from emp_trio.attempt import AttemptContext
from emp_trio.connector_context import Generated, GeneratedFile
from emp_trio.errors import AssetError, ConfigError, DeadlineExceeded, InvalidJob, Stage
from emp_trio.folders import check_own
from emp_trio.jobs import Job, SavedAsset
from emp_trio.retry import next_wait
from emp_trio.secrets import held
from emp_trio.tls import tls_context

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

_STORES: Final = 16  # maximum open stores, because jobs may bring their own accounts
_OURS: Final = "public, max-age=31536000"  # a generated name never gets content of another job
_CHOSEN: Final = "public, max-age=300"  # a chosen name may be overwritten at any time


class AssetStorage:
    """Saves assets. Get it from :func:`open_asset_storage`; one per worker is enough."""

    def __init__(self, settings: StorageSettings, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._threads = trio.CapacityLimiter(settings.uploads)
        self._stores: OrderedDict[tuple[str, Any], AssetStore] = OrderedDict()
        self._keep = GenerationSpool(settings.keep)

    def inline(self, file: GeneratedFile) -> SavedAsset | None:
        """Return a file as an asset with a data URL, or None if it is too large for a result."""
        return inline_asset(file, self._settings.inline_bytes)

    def check(self, job: Job) -> None:
        """Check that an asset of this job can be saved, without network access. Call it, or :meth:`admit`, before paid
        work.

        Raises:
            InvalidJob, ConfigError: as :meth:`save` would.
        """
        from emp_trio.assets.cdn_ways import check_cdn_form

        target = destination(job.ctx, self._settings)
        target.provider.requires(target.location, job.ctx)
        check_names(job)
        if (cdn := self._foreign_cdn(target)) is not None:
            check_cdn_form(cdn, private=self._settings.cdn_private)

    async def admit(self, job: Job) -> None:
        """Run :meth:`check`, and resolve the CDN that the job names.

        Raises:
            InvalidJob, ConfigError: as :meth:`save` would.
        """
        self.check(job)
        await self._look_up_cdn(destination(job.ctx, self._settings))

    async def _look_up_cdn(self, target: Destination) -> None:
        from emp_trio.assets.cdn_ways import check_cdn, check_cdn_form

        if (cdn := self._foreign_cdn(target)) is not None:
            check_cdn_form(cdn, private=self._settings.cdn_private)
            with trio.move_on_after(self._settings.cdn.probe_timeout):
                await check_cdn(cdn, private=self._settings.cdn_private)
        else:
            await trio.lowlevel.checkpoint()

    async def save(
        self, data: Any, job: Job, context: AttemptContext, *, media_type: str | None = None, index: int = 0
    ) -> SavedAsset:
        """Save one output of a job.

        A stream is read first, in the caller's stage. The upload stage uploads and verifies the content, unless the
        name has the same content already, from an earlier attempt. The cdn stage waits until the CDN, if any, serves
        it.

        Other content under the name is replaced if it belongs to the same job or workflow, or with ``ctx.overwrite``.
        Content of another owner, or without an owner, is an error.

        Args:
            data: bytes, base64 text, data URL, or an async iterable of bytes. Encode an asset that is text as bytes.
            media_type: type declared by the service; the detected type takes precedence.
            index: number of the output within the job, from 0.

        Raises:
            InvalidJob: the job's ``ctx`` is invalid.
            ConfigError: the destination is not configured.
            ServiceError: (response_error) the content is empty, or not of its declared type.
            AssetError: the store failed permanently, or until the end of the upload stage.
            DeadlineExceeded: the upload or cdn stage timed out; the message has the last response.
            trio.Cancelled: after transmission has stopped. A cancelled upload has stored everything or nothing.
        """
        await self.admit(job)
        target = destination(job.ctx, self._settings)
        async with gathered(data, max_bytes=self._settings.max_bytes) as content:
            kind = type_of(content.head, media_type or content.declared)
            name = asset_name(job, index, kind)
            blob = Blob(
                key=name.key,
                media_type=kind,
                cache_control=self._settings.cache_control or (_CHOSEN if name.chosen else _OURS),
                size=content.size,
                sha256=content.sha256,
                owner=owner_mark(job.id),
                workflow=owner_mark(job.workflow_id) if job.workflow_id else None,
            )
            log = WaitLog()
            with _stage(context, "upload", log):
                store = await self._store(target)
                await self._upload(store, blob, content, log, overwrite=job.ctx.overwrite)
        url = store.url(name.key)
        if target.cdn_url is not None:
            with _stage(context, "cdn", log):
                url = await wait_for_cdn(
                    self._way(target.cdn_url),
                    public_url(target.cdn_url, name.key),
                    Expected(size=blob.size, sha256=blob.sha256),
                    self._settings.cdn,
                    log,
                )
        return SavedAsset(
            file_path=name.key,
            file_name=name.name,
            file_url=url,
            cdn_url=url,
            media_type=kind,
            size=blob.size,
            sha256=blob.sha256,
        )

    def _foreign_cdn(self, target: Destination) -> str | None:
        """Return the CDN if it is the job's, not the operator's."""
        cdn = target.cdn_url
        return None if cdn is None or is_own_cdn(cdn, self._settings) else cdn

    def _way(self, cdn: str) -> Way:
        from emp_trio.assets.cdn_ways import CdnWay

        own, private = is_own_cdn(cdn, self._settings), self._settings.cdn_private
        return CdnWay(self._client, cdn, own=own, private=private)

    async def kept(self, job: Job) -> Generated | None:
        """Return the output that an earlier attempt of this job, with the same request, kept on this machine, or None.

        Raises:
            InvalidJob: the address of the job's CDN is not allowed; raised here, before paid work.
        """
        try:
            target = destination(job.ctx, self._settings)
        except (ConfigError, InvalidJob) as error:
            await trio.lowlevel.checkpoint()
            if job.ctx.cdn_url is not None and isinstance(error, InvalidJob):
                raise  # otherwise there is no place at all, which :meth:`check` has told whoever saves something
        else:
            await self._look_up_cdn(target)
        return await trio.to_thread.run_sync(self._keep.find, job)

    async def keep(self, generated: Generated, job: Job) -> tuple[bool, str]:
        """Keep output that could not be saved, for the next attempt of the job. Shielded, with a time limit.

        Returns:
            whether it was kept; and a sentence for the error message with its location, or why it was not.
        """
        why = f"writing them took more than {self._settings.keep.limit:g} s"
        with trio.move_on_after(self._settings.keep.limit, shield=True):
            try:
                path = await trio.to_thread.run_sync(
                    self._keep.store, generated, job, trio.from_thread.check_cancelled, abandon_on_cancel=True
                )
            except OSError as error:
                why = error.strerror or str(error)
            else:
                hours = self._settings.keep.max_age / 3600
                return (
                    True,
                    f"Its files are kept on this machine in {path} for {hours:g} h; "
                    "the job's next attempt here uploads them and generates nothing",
                )
        return False, f"Its files could not be kept on this machine: {why}; another attempt has to generate again"

    async def forget(self, job: Job) -> None:
        """Remove the output kept for this job. Shielded, with a time limit."""
        with trio.move_on_after(self._settings.keep.limit, shield=True):
            await trio.to_thread.run_sync(self._keep.forget, job, abandon_on_cancel=True)

    async def _upload(self, store: AssetStore, blob: Blob, content: Content, log: WaitLog, *, overwrite: bool) -> None:
        """Upload and verify. Retry after temporary failures while the stage has time."""

        def once(cancel: CancelToken) -> None:
            there = store.head(blob.key, cancel)
            if not to_be_written(blob, there, overwrite=overwrite):
                return
            store.put(blob, Reader(content.file, cancel), there, cancel)
            there = store.head(blob.key, cancel)
            if not _same(blob, there):
                raise storage_failure(
                    f"the asset {blob.key!r} was uploaded and the store has something else there",
                    type="response_error",
                    reason="corrupted_data",
                    retry=True,
                )

        tried, before = 0, ""
        while True:
            tried += 1
            log.last = f"try {tried} of the upload of {blob.key!r} was under way{before}"
            try:
                await in_thread(once, self._threads)
                return
            except AssetError as error:
                before = f"; the one before: {error.message}"
                left = trio.current_effective_deadline() - trio.current_time()
                wait = next_wait(
                    self._settings.retry, tried=tried, failure=error.failure, left=left, random=random.random()
                )
                if wait is None:
                    raise
            await trio.sleep(wait)

    async def _store(self, target: Destination) -> AssetStore:
        """Return the open store for a location. Keep only the last few open: jobs bring any number of accounts."""
        at = (target.provider.name, target.location)
        if at in self._stores:
            self._stores.move_to_end(at)
            await trio.lowlevel.checkpoint()
            return self._stores[at]
        timeouts = StoreTimeouts(
            connect=self._settings.connect_timeout,
            read=self._settings.read_timeout,
            abort=self._settings.abort_timeout,
        )
        store = await trio.to_thread.run_sync(target.provider.open, target.location, timeouts)
        if at in self._stores:
            store.close()  # another job opened it meanwhile
        else:
            self._stores[at] = store
            if len(self._stores) > _STORES:
                self._stores.popitem(last=False)[1].close()
        return self._stores[at]

    def _close(self) -> None:
        for store in self._stores.values():
            store.close()


@asynccontextmanager
async def open_asset_storage(settings: StorageSettings) -> AsyncIterator[AssetStorage]:
    """Open the asset storage with its connections.

    Imports the library of the configured provider in a thread, so that the first job does not wait half a second for
    it.

    Args:
        settings: from :func:`emp_trio.assets.config.storage_settings`.

    Raises:
        ConfigError: the provider's library is not installed.

    Yields:
        the storage, for all jobs. Its connections are closed when the block ends; all saves must have ended by then.
    """
    import httpx

    provider = find_provider(settings.provider) if settings.provider is not None else None
    if provider is not None:
        try:
            await trio.to_thread.run_sync(provider.load)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"CLOUD_STORAGE_PROVIDER={provider.name} needs {error.name}, which is not installed: "
                f"pip install 'emp-trio[{provider.name}]'"
            ) from error
    timeout, tls = settings.cdn.probe_timeout, tls_context()
    _check_folders(settings)
    with held(*settings.secrets):
        async with httpx.AsyncClient(timeout=timeout, verify=tls) as client:
            storage = AssetStorage(settings, client)
            try:
                yield storage
            finally:
                storage._close()


def _check_folders(settings: StorageSettings) -> None:
    """Warn if the spool folder is unusable: nothing can be kept in it."""
    if settings.keep.folder is None:
        return
    try:
        check_own(settings.keep.folder)
    except (FileNotFoundError, NotADirectoryError):
        return  # created, or reported, when it is needed
    except OSError as error:
        log.warning(
            "kept.unusable",
            path=str(settings.keep.folder),
            error=error.strerror,
            hint="generations whose upload fails are lost; EMP_TRIO_KEEP_DIR names another folder",
        )


def to_be_written(blob: Blob, there: Stored | None, *, overwrite: bool) -> bool:
    """Return whether a blob must be written, given the content under its key. Pure.

    Args:
        there: content under the key, or None.
        overwrite: whether the submitter allows replacing any content.

    Returns:
        False if the same content is there already.

    Raises:
        AssetError: the content belongs to another owner, or has none: another program wrote it.
    """
    if there is None:
        return True
    if _same(blob, there):
        return False
    same_workflow = blob.workflow is not None and there.workflow == blob.workflow
    if not (overwrite or same_workflow or there.owner == blob.owner):
        whose = "of another job" if there.owner is not None else "of another job or program, which has not signed it"
        raise storage_failure(
            f"the name {blob.key!r} already holds an asset {whose}: it is not replaced",
            hint="Give the job another name or prefix (ctx.filename, ctx.prefix), or say that it may replace what is "
            "there (ctx.overwrite: true)",
            type="validation_error",
            reason="invalid_payload",
            retry=False,
        )
    return True


def _same(blob: Blob, there: Stored | None) -> bool:
    return there is not None and there.size == blob.size and there.sha256 == blob.sha256


@contextmanager
def _stage(context: AttemptContext, stage: Stage, log: WaitLog) -> Iterator[None]:
    """Run a stage whose DeadlineExceeded includes the last response."""
    log.last = ""
    try:
        with context.stage(stage):
            yield
    except DeadlineExceeded as late:
        if late.stage != stage:
            raise
        raise DeadlineExceeded(stage, late.seconds, log.last) from late
