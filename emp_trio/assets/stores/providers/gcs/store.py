"""Store assets in Google Cloud Storage with Google's library. Importing this module takes half a second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import google.auth
import requests
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.oauth2 import service_account
from urllib3.exceptions import HTTPError

from emp_trio.assets.stores import Blob, Stored, storage_failure
from emp_trio.assets.stores.answers import lacking
from emp_trio.assets.stores.blocking import CancelToken, Reader
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.providers.gcs.account import GcsBucket
from emp_trio.assets.stores.providers.gcs.errors import gcs_failure
from emp_trio.assets.stores.session import SessionPool
from emp_trio.errors import AssetError

PART: Final = 8 * 2**20
"""Maximum bytes per request. Larger content goes to an upload session in parts (multiples of 256 KiB) and appears with
the last part."""

_PUBLIC: Final = "https://storage.googleapis.com"
_SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_write",)

# requests lets some errors of urllib3 through unwrapped when retries are off.
_FAILURES: Final = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    requests.RequestException,
    HTTPError,
    OSError,
    ValueError,
)


class GcsStore:
    """A bucket. After cancellation, a call sends at most the rest of one part. Google deletes such parts in a week.

    Retries of the library are off, because AssetStorage retries.
    """

    def __init__(self, location: GcsBucket, timeouts: StoreTimeouts) -> None:
        self._location = location
        self._timeout = (timeouts.connect, timeouts.read)
        self._pool = SessionPool()
        try:
            self._credentials = _credentials(location)
        except (GoogleAuthError, OSError, ValueError) as error:
            raise storage_failure(
                f"Google storage can't be used: there are no credentials ({type(error).__name__})",
                hint="Is GOOGLE_APPLICATION_CREDENTIALS the file of an account, or does this machine have one?",
                type="auth_error",
                reason="invalid_api_key",
                retry=False,
            ) from error

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """Return the object's size, and digest and owner from its metadata.

        A missing bucket looks like a missing object here; the upload detects it.
        """
        with self._bucket(key, cancel, "the object {} can't be looked up", uploading=False) as bucket:
            found = bucket.blob(key)
            try:
                found.reload(timeout=self._timeout, retry=None)
            except NotFound:
                return None
            notes = found.metadata or {}
            if found.size is None or found.generation is None:
                where = f"the object {key!r} can't be looked up (bucket {self._location.bucket})"
                raise lacking(where, "size" if found.size is None else "generation")
            return Stored(
                size=int(found.size),
                sha256=notes.get("sha256"),
                owner=notes.get("job_id"),
                workflow=notes.get("workflow_id"),
                version=str(found.generation),
            )

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Store an object with its headers and metadata (``job_id``, ``workflow_id``, ``sha256``)."""
        with self._bucket(blob.key, cancel, "the object {} can't be uploaded", uploading=True) as bucket:
            target = bucket.blob(blob.key, chunk_size=PART if blob.size > PART else None)
            target.cache_control = blob.cache_control
            target.metadata = blob.notes
            target.upload_from_file(
                _Counted(body),
                size=blob.size,
                content_type=blob.media_type,
                if_generation_match=int(over.version or 0) if over is not None else 0,
                timeout=self._timeout,
                retry=None,
            )

    def url(self, key: str) -> str:
        """Return the URL of the object."""
        return f"{self._location.endpoint or _PUBLIC}/{self._location.bucket}/{quote(key, safe='/~')}"

    def close(self) -> None:
        """Close idle connections now, and those in use when their calls end."""
        self._pool.close()

    @contextmanager
    def _bucket(self, key: str, cancel: CancelToken, what: str, *, uploading: bool) -> Iterator[Any]:
        """Return the bucket with its own connection, for one call."""
        with self._pool.session(cancel) as session:
            if session.carrier is None:
                # Kept with the session: its Request closes the session when it is garbage-collected.
                session.carrier = AuthorizedSession(self._credentials, auth_request=Request(session=session))  # type: ignore[no-untyped-call]
                session.carrier.mount("https://", session.adapter)
                session.carrier.mount("http://", session.adapter)
            options = {"api_endpoint": self._location.endpoint or _PUBLIC}
            client = storage.Client(
                project=None, credentials=self._credentials, _http=session.carrier, client_options=options
            )
            # The library's default would look up the bucket in its own threads, on this call's connection.
            client._bucket_metadata_cache = None
            try:
                yield client.bucket(self._location.bucket)
            except _FAILURES as error:
                raise self._failure(error, what.format(repr(key)), ahead=session.ahead, uploading=uploading) from error

    def _failure(self, error: Exception, what: str, *, ahead: float, uploading: bool) -> AssetError:
        where = f"{what} (bucket {self._location.bucket})"
        if isinstance(error, DataCorruption):
            return storage_failure(
                f"{where}: the bytes were altered on their way",
                type="response_error",
                reason="corrupted_data",
                retry=True,
            )
        return gcs_failure(error, what=where, uploading=uploading, read_timeout=self._timeout[1], ahead=ahead)


class _Counted:
    """Reader with ``tell``, which Google's library needs."""

    def __init__(self, body: Reader) -> None:
        self._body = body
        self._read = 0

    def read(self, size: int) -> bytes:
        data = self._body.read(size)
        self._read += len(data)
        return data

    def tell(self) -> int:
        return self._read


def _credentials(location: GcsBucket) -> Any:
    if location.credentials is None and location.endpoint is not None:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    if location.credentials is not None:
        info = json.loads(location.credentials.read_bytes())
        if isinstance(info, dict) and info.get("type") == "service_account":
            return service_account.Credentials.from_service_account_info(info, scopes=_SCOPES)  # type: ignore[no-untyped-call]
    return google.auth.default(scopes=_SCOPES)[0]
