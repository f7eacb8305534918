"""Store assets in S3 and compatible services with boto3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import boto3
import requests
import structlog
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from emp_trio.assets.stores import Blob, Stored
from emp_trio.assets.stores.answers import lacking, wanted, whole_size
from emp_trio.assets.stores.blocking import CancelToken, Reader
from emp_trio.assets.stores.provider import StoreTimeouts
from emp_trio.assets.stores.providers.s3.account import S3Bucket
from emp_trio.assets.stores.providers.s3.errors import error_code, s3_failure
from emp_trio.assets.stores.session import CuttableSession, SessionPool

log = structlog.get_logger(__name__)

PART: Final = 8 * 2**20
"""Maximum bytes per request. Larger content is sent in parts (S3's limits: at least 5 MiB, at most 10,000 parts) and
appears when the upload is completed."""

# requests lets some errors of urllib3 through unwrapped when retries are off.
_FAILURES: Final = (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ResponseParserError,
    requests.RequestException,
    HTTPError,
    OSError,
)


class S3Store:
    """A bucket. After cancellation, a call sends at most the rest of one part.

    Retries of the SDK are off, because AssetStorage retries. The SDK builds and signs requests; our own sessions, which
    cancellation can cut, send them. Failed and cancelled uploads are aborted at the store; invisible parts of a killed
    process stay until a lifecycle rule of the bucket deletes them.
    """

    def __init__(self, location: S3Bucket, timeouts: StoreTimeouts) -> None:
        self._location = location
        self._timeout = (timeouts.connect, timeouts.read)
        self._abort_timeout = (timeouts.abort, timeouts.abort)
        self._pool = SessionPool()
        self._call = threading.local()  # session and timeout of a thread's current call
        try:
            self._client = self._connect()
        except BotoCoreError as error:
            raise self._failure(error, "S3 can't be used", ahead=0.0) from error

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """Return the object's size, and digest and owner from its metadata.

        Uses GET of one byte, because unlike HEAD its error response distinguishes a missing object from a missing
        bucket, and a wrong key from a missing permission.
        """
        target = {"Bucket": self._location.bucket, "Key": key}
        with self._session(key, cancel, "the object {} can't be looked up"):
            size = None
            try:
                found = self._client.get_object(**target, Range="bytes=0-0")
            except ClientError as error:
                if error_code(error) == "NoSuchKey":
                    return None
                if error_code(error) != "InvalidRange":
                    raise
            else:
                size = _size(found)
                _one_byte(found)
            if size is None:  # empty, or the response does not have the total size
                found = self._client.head_object(**target)
                size = _size(found)
            if size is None:
                raise lacking(f"the object {key!r} can't be looked up (bucket {self._location.bucket})", "size")
        notes = found.get("Metadata") or {}
        return Stored(
            size=size,
            sha256=notes.get("sha256"),
            owner=notes.get("job_id"),
            workflow=notes.get("workflow_id"),
            version=found.get("ETag"),
        )

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Store an object with its headers and metadata (``job_id``, ``workflow_id``, ``sha256``)."""
        target = {"Bucket": self._location.bucket, "Key": blob.key}
        about = {
            "ContentType": blob.media_type,
            "CacheControl": blob.cache_control,
            "Metadata": blob.notes,
        }
        what = f"the object {blob.key!r} can't be uploaded (bucket {self._location.bucket})"
        if over is not None and over.version is None:
            raise lacking(what, "ETag, without which nothing can be replaced safely")
        condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over.version}
        with self._session(blob.key, cancel, "the object {} can't be uploaded"):
            if blob.size <= PART:
                self._client.put_object(**target, **about, **condition, Body=body.read(PART))
                return
            begun = self._client.create_multipart_upload(**target, **about)
            upload = target | {"UploadId": wanted(begun, "UploadId", what)}
            try:
                parts = []
                for number in range(1, -(-blob.size // PART) + 1):
                    part = self._client.upload_part(**upload, PartNumber=number, Body=body.read(PART))
                    parts.append({"ETag": wanted(part, "ETag", what), "PartNumber": number})
                self._client.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": parts})
            except BaseException:
                self._give_up(upload)
                raise

    def url(self, key: str) -> str:
        """Return the URL of the object."""
        account, path = self._location.account, quote(key, safe="/~")
        if account.endpoint is not None:
            return f"{account.endpoint}/{self._location.bucket}/{path}"
        if "." in self._location.bucket:  # no certificate matches it as a host name
            return f"https://s3.{account.region}.amazonaws.com/{self._location.bucket}/{path}"
        return f"https://{self._location.bucket}.s3.{account.region}.amazonaws.com/{path}"

    def close(self) -> None:
        """Close idle connections now, and those in use when their calls end."""
        self._pool.close()
        self._client.close()

    def _connect(self) -> Any:
        account = self._location.account
        client = boto3.session.Session().client(
            "s3",
            aws_access_key_id=account.key_id,
            aws_secret_access_key=account.secret.reveal() if account.secret else None,
            aws_session_token=account.token.reveal() if account.token else None,
            region_name=account.region,
            endpoint_url=account.endpoint or f"https://s3.{account.region}.amazonaws.com",
            config=Config(
                retries={"total_max_attempts": 1},
                # The signature covers the content, and not every store supports the newer checksums.
                s3={
                    "payload_signing_enabled": True,
                    "addressing_style": "path" if account.endpoint else "auto",
                },
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        client.meta.events.register("before-send.s3", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        """Send a signed request through the session of this thread's call (botocore's event ``before-send``)."""
        session: CuttableSession = self._call.session
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, request.url, request.body
        prepared.headers = requests.structures.CaseInsensitiveDict(request.headers)
        prepared.headers.pop("expect", None)  # requests does not wait for "100 Continue"
        settings = session.merge_environment_settings(request.url, {}, True, None, None)
        answer = session.adapter.send(prepared, timeout=self._call.timeout, **settings)
        if answer.is_redirect and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise ResponseParserError("a redirect that is not S3's")  # botocore would follow it endlessly
        return AWSResponse(request.url, answer.status_code, answer.headers, answer.raw)

    @contextmanager
    def _session(self, key: str, cancel: CancelToken, what: str) -> Iterator[None]:
        """Send this thread's requests on their own connection, for one call."""
        with self._pool.session(cancel) as session:
            self._call.session, self._call.timeout = session, self._timeout
            try:
                yield
            except _FAILURES as error:
                raise self._failure(error, what.format(repr(key)), ahead=session.ahead) from error
            finally:
                del self._call.session

    def _failure(self, error: Exception, what: str, *, ahead: float) -> Exception:
        where = f"{what} (bucket {self._location.bucket})"
        return s3_failure(error, what=where, read_timeout=self._timeout[1], ahead=ahead)

    def _give_up(self, upload: dict[str, str]) -> None:
        """Abort an upload at the store, on a new connection, because that of the call may have been cut."""
        before = self._call.session
        with CuttableSession() as session:
            self._call.session, self._call.timeout = session, self._abort_timeout
            try:
                # Required by S3: a part still in transit may need another abort.
                if left := self._abort(upload) and self._abort(upload):
                    log.warning("s3.parts_left", bucket=upload["Bucket"], key=upload["Key"], error=type(left).__name__)
            finally:
                self._call.session, self._call.timeout = before, self._timeout

    def _abort(self, upload: dict[str, str]) -> Exception | None:
        """Send the abort. Return its error, or None."""
        try:
            self._client.abort_multipart_upload(**upload)
        except _FAILURES as error:
            return None if isinstance(error, ClientError) and error_code(error) == "NoSuchUpload" else error
        return None


def _size(answer: Any) -> int | None:
    about = answer.get("ResponseMetadata") or {}
    return whole_size(about.get("HTTPStatusCode", 0), about.get("HTTPHeaders") or {})


def _one_byte(answer: Any) -> None:
    """Read only the requested byte: a store without range support sends the whole object."""
    body = answer["Body"]
    if answer.get("ContentLength") == 1:
        body.read()
    body.close()
