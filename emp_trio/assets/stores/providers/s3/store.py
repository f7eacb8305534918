"""Assets in S3, and in stores that speak its protocol, through boto3."""

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
"""Bytes sent in one request. Larger content is sent in parts (5 MiB at least, 10,000 at most: S3's limits) and appears
when they are completed."""

# What requests has not made its own comes as urllib3's: where nothing is to be repeated, it lets that pass.
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
    """A bucket. One part is the most that a cancelled call has still sent when it ends.

    The SDK is told to repeat nothing: the saver owns the retries. It builds and signs requests; they travel through
    sessions of ours, which a cancel can cut. Parts of an upload that failed or was cancelled are given up at the store;
    those of a killed process stay there unseen until the bucket's lifecycle rule for them.
    """

    def __init__(self, location: S3Bucket, timeouts: StoreTimeouts) -> None:
        self._location = location
        self._timeout = (timeouts.connect, timeouts.read)
        self._abort_timeout = (timeouts.abort, timeouts.abort)
        self._pool = SessionPool()
        self._call = threading.local()  # the session and timeout of the call that a thread is in
        try:
            self._client = self._connect()
        except BotoCoreError as error:
            raise self._failure(error, "S3 can't be used", ahead=0.0) from error

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """The object's size, and the digest and owner from its metadata. Asks for one byte: unlike that of HEAD, the
        answer to GET tells a missing object from a missing bucket, and a wrong key from a missing right."""
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
            if size is None:  # it is empty, or the answer to the part does not say how large the whole is
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
        """The object's address."""
        account, path = self._location.account, quote(key, safe="/~")
        if account.endpoint is not None:
            return f"{account.endpoint}/{self._location.bucket}/{path}"
        if "." in self._location.bucket:  # no certificate covers it as a host name
            return f"https://s3.{account.region}.amazonaws.com/{self._location.bucket}/{path}"
        return f"https://{self._location.bucket}.s3.{account.region}.amazonaws.com/{path}"

    def close(self) -> None:
        """Close the idle connections, and those in use when they come back."""
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
                # The signature covers the bytes: every store checks that, and not every one knows the newer checksums.
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
        prepared.headers.pop("expect", None)  # nobody here would wait for the 100
        settings = session.merge_environment_settings(request.url, {}, True, None, None)
        answer = session.adapter.send(prepared, timeout=self._call.timeout, **settings)
        if answer.is_redirect and "x-amz-bucket-region" not in answer.headers:
            answer.close()
            raise ResponseParserError(
                "a redirect that is not S3's"
            )  # botocore would ask it where the bucket is, for ever
        return AWSResponse(request.url, answer.status_code, answer.headers, answer.raw)

    @contextmanager
    def _session(self, key: str, cancel: CancelToken, what: str) -> Iterator[None]:
        """Let this thread's requests travel on a connection of its own, for the time of one call."""
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
        """Have the store forget the parts; on a connection of its own, as that of the call may have been cut."""
        before = self._call.session
        with CuttableSession() as session:
            self._call.session, self._call.timeout = session, self._abort_timeout
            try:
                # S3 says so: a part that is still on its way may want another abort.
                if left := self._abort(upload) and self._abort(upload):
                    log.warning("s3.parts_left", bucket=upload["Bucket"], key=upload["Key"], error=type(left).__name__)
            finally:
                self._call.session, self._call.timeout = before, self._timeout

    def _abort(self, upload: dict[str, str]) -> Exception | None:
        """What kept the store from forgetting the parts, or None."""
        try:
            self._client.abort_multipart_upload(**upload)
        except _FAILURES as error:
            return None if isinstance(error, ClientError) and error_code(error) == "NoSuchUpload" else error
        return None


def _size(answer: Any) -> int | None:
    about = answer.get("ResponseMetadata") or {}
    return whole_size(about.get("HTTPStatusCode", 0), about.get("HTTPHeaders") or {})


def _one_byte(answer: Any) -> None:
    """Read the byte that was asked for; of more than that, nothing: a store that heeds no ranges sends the whole."""
    body = answer["Body"]
    if answer.get("ContentLength") == 1:
        body.read()
    body.close()
