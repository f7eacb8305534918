"""Store assets in Azure Blob Storage with the synchronous SDK. Importing this module takes half a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings, LinearRetry

from emp_trio.assets.stores import Blob, Stored
from emp_trio.assets.stores.answers import lacking
from emp_trio.assets.stores.blocking import CancelToken, Reader
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.providers.azure.account import AzureContainer
from emp_trio.assets.stores.providers.azure.errors import azure_failure, error_code
from emp_trio.assets.stores.session import SessionPool

BLOCK: Final = 4 * 2**20
"""Maximum bytes per request. Larger content is staged in blocks and appears when the block list is committed."""


class AzureStore:
    """A container. After cancellation, a call sends at most the rest of one block.

    Retries of the SDK are off, because AssetStorage retries. A retried upload continues after the blocks staged by an
    earlier try or attempt.
    """

    def __init__(self, location: AzureContainer, timeouts: StoreTimeouts) -> None:
        self._location = location
        self._timeouts = {"connection_timeout": timeouts.connect, "read_timeout": timeouts.read}
        self._credential = _credential(location, timeouts)
        self._pool = SessionPool()

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """Return the blob's size, and digest and owner from its metadata."""
        with self._client(key, cancel, "the blob {} can't be looked up") as client:
            try:
                found: Any = client.get_blob_properties()
            except ResourceNotFoundError as error:
                if error_code(error) == "BlobNotFound":
                    return None
                raise  # the container is missing, not the blob
            notes = {name.lower(): value for name, value in (found.metadata or {}).items()}
            if found.size is None:
                raise lacking(f"the blob {key!r} can't be looked up (container {self._location.container})", "size")
            return Stored(
                size=found.size,
                sha256=notes.get("sha256"),
                owner=notes.get("job_id"),
                workflow=notes.get("workflow_id"),
                version=str(found.etag) if found.etag else None,
            )

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Store a blob with its headers and metadata (``job_id``, ``workflow_id``, ``sha256``)."""
        about: dict[str, Any] = {
            "content_settings": ContentSettings(content_type=blob.media_type, cache_control=blob.cache_control),
            "metadata": blob.notes,
        }
        if over is not None and not over.version:
            where = f"the blob {blob.key!r} can't be uploaded (container {self._location.container})"
            raise lacking(where, "ETag, without which nothing can be replaced safely")
        if over is None:
            about["match_condition"] = MatchConditions.IfMissing
        else:
            about.update(match_condition=MatchConditions.IfNotModified, etag=over.version)
        with self._client(blob.key, cancel, "the blob {} can't be uploaded") as client:
            if blob.size <= BLOCK:
                client.upload_blob(body.read(BLOCK), overwrite=True, **about)
                return
            staged = _staged(client)
            blocks = []
            for number in range(-(-blob.size // BLOCK)):
                data = body.read(BLOCK)
                block = f"{blob.sha256[:32]}-{number:06d}"
                if staged.get(block) != len(data):
                    client.stage_block(block, data)
                blocks.append(BlobBlock(block))
            client.commit_block_list(blocks, **about)

    def url(self, key: str) -> str:
        """Return the URL of the blob."""
        return f"{self._location.endpoint}/{self._location.container}/{quote(key, safe='/~')}"

    def close(self) -> None:
        """Close idle connections now, and those in use when their calls end."""
        self._pool.close()
        if hasattr(self._credential, "close"):
            self._credential.close()

    @contextmanager
    def _client(self, key: str, cancel: CancelToken, what: str) -> Iterator[BlobClient]:
        """Return a client for one blob with its own connection, for one call."""
        with self._pool.session(cancel) as session:
            try:
                yield BlobClient(
                    self._location.endpoint,
                    self._location.container,
                    key,
                    credential=self._credential,
                    transport=RequestsTransport(session=session, session_owner=False, **self._timeouts),
                    retry_policy=LinearRetry(retry_total=0),
                    max_single_put_size=BLOCK,
                    max_block_size=BLOCK,
                )
            except AzureError as error:
                at = self._location
                where = f"{what.format(repr(key))} (container {at.container}, account {at.account})"
                limit = self._timeouts["read_timeout"]
                raise azure_failure(error, what=where, read_timeout=limit, ahead=session.ahead) from error


def _credential(location: AzureContainer, timeouts: StoreTimeouts) -> Any:
    """Return the SDK's credential: key, signature, or this machine's identity, fetched when needed."""
    if location.key is not None:
        return {"account_name": location.account, "account_key": location.key.reveal()}
    if location.sas is not None:
        return AzureSasCredential(location.sas.reveal().removeprefix("?"))
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(
        exclude_cli_credential=True,  # interactive credentials start programs and wait for them
        exclude_developer_cli_credential=True,
        exclude_powershell_credential=True,
        connection_timeout=timeouts.connect,
        read_timeout=timeouts.read,
        retry_total=1,
    )


def _staged(client: BlobClient) -> dict[str, int]:
    """Return the sizes of the uncommitted blocks of a blob, by block id."""
    try:
        _, waiting = client.get_block_list("uncommitted")
    except ResourceNotFoundError as error:
        if error_code(error) == "BlobNotFound":
            return {}
        raise
    return {str(block.id): int(block.size or 0) for block in waiting}
