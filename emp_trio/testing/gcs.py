"""Google Cloud Storage for tests: the part of its JSON API that storing a file needs, checked strictly.

::

    async with open_gcs(tmp_path) as gcs:
        gcs.create_bucket("assets")
        settings = storage_settings(gcs.environment("assets"))

It takes no request without a token, gives tokens only for assertions that its one service account has signed within the
last hour, and refuses what the JSON API reference (Objects: get, insert; "Resumable uploads") does not have.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.parser import BytesParser
from pathlib import Path
from typing import Any, Final

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emp_trio.testing.serve import open_server

_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"  # whatever the address that the assertion is sent to
_CHUNK: Final = 256 * 2**10
_WRITABLE: Final = {"name", "contentType", "cacheControl", "metadata", "crc32c", "md5Hash"}
_SKEW: Final = 300.0


class Refusal(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message


class Gcs:
    """A running storage service.

    Attributes:
        url: its base URL.
        key_file: credentials of its service account, for ``GOOGLE_APPLICATION_CREDENTIALS``.
        objects: bucket -> name -> (metadata, content).
        sessions: uploads that have begun and not ended.
        fault: called with every request but those for tokens; what it raises is the answer.
        app: its ASGI application.
    """

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.key_file = folder / "service-account.json"
        self.objects: dict[str, dict[str, tuple[dict[str, Any], bytes]]] = {}
        self.sessions: dict[str, tuple[dict[str, Any], bytearray]] = {}
        self.fault: Callable[[Request], None] = lambda request: None
        self._tokens: set[str] = set()
        self._certificate = b""
        self._generation = int(time.time() * 1e6)
        self.app = Starlette(
            routes=[
                Route("/token", self._answer(self._token), methods=["POST"]),
                Route("/storage/v1/b/{bucket}/o/{name:path}", self._answer(self._get)),
                Route("/upload/storage/v1/b/{bucket}/o", self._answer(self._insert), methods=["POST", "PUT"]),
                Route("/{bucket}/{name:path}", self._answer(self._media)),
            ]
        )

    def create_bucket(self, name: str) -> None:
        """Make a bucket that anybody can read."""
        self.objects[name] = {}

    def environment(self, bucket: str) -> dict[str, str]:
        """The variables that make a worker use this bucket."""
        return {
            "CLOUD_STORAGE_PROVIDER": "gcs",
            "CLOUD_STORAGE_CONTAINER": bucket,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key_file),
            "STORAGE_EMULATOR_HOST": self.url,
        }

    def write_key_file(self, path: Path, *, known: bool = True) -> None:
        """Write credentials of the service account; with ``known`` False, of a key that it does not have."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(65537, 2048)
        if known:
            pem = serialization.Encoding.PEM
            self._certificate = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        content = {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": "1",
            "private_key": private.decode(),
            "client_email": "worker@tests.example.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(content))

    def _answer(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                if handler != self._token:
                    self.fault(request)
                response: Response = await handler(request)
            except Refusal as refusal:
                about = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
                error = {"code": refusal.status, "message": refusal.message, "errors": [about]}
                return JSONResponse({"error": error}, refusal.status)
            return response

        return answer

    async def _token(self, request: Request) -> Response:
        """OAuth 2.0 for server to server applications: an assertion for a token."""
        from google.auth import jwt

        form = dict(pair.split("=", 1) for pair in (await request.body()).decode().split("&"))
        try:
            if form.get("grant_type", "").replace("%3A", ":") != _GRANT:
                raise ValueError("unsupported grant")
            claims = jwt.decode(form["assertion"], self._certificate, clock_skew_in_seconds=int(_SKEW))  # type: ignore[no-untyped-call]
            if claims["aud"] != _AUDIENCE or "devstorage" not in claims["scope"]:
                raise ValueError("wrong audience or scope")
        except (ValueError, KeyError) as error:
            return JSONResponse({"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}, 400)
        token = secrets.token_hex(16)
        self._tokens.add(token)
        return JSONResponse({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _check(self, request: Request, *allowed: str) -> dict[str, Any]:
        """The query of a request that may be made; ``allowed`` is what it may hold."""
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
            raise Refusal(401, "authError", "Invalid Credentials")
        query = dict(request.query_params)
        if unknown := query.keys() - {*allowed, "prettyPrint", "projection", "alt"}:
            raise Refusal(400, "invalidParameter", f"unknown parameters: {sorted(unknown)}")
        return query

    def _bucket(self, request: Request) -> dict[str, tuple[dict[str, Any], bytes]]:
        bucket = self.objects.get(request.path_params["bucket"])
        if bucket is None:
            raise Refusal(404, "notFound", "The specified bucket does not exist.")
        return bucket

    async def _get(self, request: Request) -> Response:
        self._check(request)
        await trio.lowlevel.checkpoint()
        found = self._bucket(request).get(request.path_params["name"])
        if found is None:
            raise Refusal(404, "notFound", "No such object")
        return JSONResponse(found[0])

    async def _media(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        found = self._bucket(request).get(request.path_params["name"])
        if found is None:
            raise Refusal(404, "notFound", "No such object")
        about, content = found
        headers = {"cache-control": about.get("cacheControl", "")}
        headers |= {f"x-goog-meta-{name}": value for name, value in about.get("metadata", {}).items()}
        return Response(content, media_type=about["contentType"], headers=headers)

    async def _insert(self, request: Request) -> Response:
        query = self._check(request, "uploadType", "ifGenerationMatch", "upload_id", "name")
        self._bucket(request)
        if request.method == "PUT":
            return await self._continue(request, query)
        if query.get("uploadType") == "multipart":
            about, content = _parts(request.headers["content-type"], await request.body())
            return self._store(request, about, content, query)
        if query.get("uploadType") != "resumable":
            raise Refusal(400, "invalidParameter", "uploadType is neither multipart nor resumable")
        about = json.loads(await request.body()) | {"_query": query}
        about["_size"] = int(request.headers["x-upload-content-length"])
        about.setdefault("contentType", request.headers["x-upload-content-type"])
        upload = secrets.token_hex(8)
        self.sessions[upload] = (about, bytearray())
        return Response(
            headers={"location": f"{request.url.replace(query='')}?uploadType=resumable&upload_id={upload}"}
        )

    async def _continue(self, request: Request, query: dict[str, Any]) -> Response:
        if query.get("upload_id") not in self.sessions:
            raise Refusal(404, "notFound", "Upload session not found")
        about, received = self.sessions[query["upload_id"]]
        span, _, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        body = await request.body()
        if int(first) != len(received) or int(last) - int(first) + 1 != len(body):
            raise Refusal(400, "invalid", f"content-range {span} does not continue {len(received)} bytes")
        received += body
        if total == "*" or len(received) < int(total):
            if len(body) % _CHUNK:
                raise Refusal(400, "invalid", "a part must be a multiple of 256 KiB")
            return Response(status_code=308, headers={"range": f"bytes=0-{len(received) - 1}"})
        if len(received) != int(total) or int(total) != about["_size"]:
            raise Refusal(400, "invalid", "more or fewer bytes than announced")
        del self.sessions[query["upload_id"]]
        described = {name: value for name, value in about.items() if not name.startswith("_")}
        return self._store(request, described, bytes(received), about["_query"])

    def _store(self, request: Request, about: dict[str, Any], content: bytes, query: dict[str, Any]) -> Response:
        if unknown := about.keys() - _WRITABLE:
            raise Refusal(400, "invalid", f"unknown fields: {sorted(unknown)}")
        bucket, name = self._bucket(request), about["name"]
        there = int(bucket[name][0]["generation"]) if name in bucket else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != there:
            raise Refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        crc32c = _crc32c(content)
        if about.get("md5Hash", md5) != md5 or about.get("crc32c", crc32c) != crc32c:
            raise Refusal(400, "invalid", "the checksum does not match")
        self._generation += 1
        made = about | {
            "kind": "storage#object",
            "bucket": request.path_params["bucket"],
            "generation": str(self._generation),
            "metageneration": "1",
            "size": str(len(content)),
            "md5Hash": md5,
            "crc32c": crc32c,
        }
        bucket[name] = (made, content)
        return JSONResponse(made)


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Metadata and content of a body of the type multipart/related."""
    message: Any = BytesParser().parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    parts = message.get_payload()
    if message.get_content_type() != "multipart/related" or len(parts) != 2:
        raise Refusal(400, "badContent", "the body is not metadata and content")
    about = json.loads(parts[0].get_payload(decode=True))
    boundary = b"\r\n--" + message.get_boundary().encode()
    head = body.index(b"\r\n\r\n", body.index(boundary)) + 4  # the parser changes line ends of the content
    about.setdefault("contentType", parts[1].get_content_type())
    return about, body[head : body.rindex(boundary)]


def _crc32c(content: bytes) -> str:
    import google_crc32c

    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@asynccontextmanager
async def open_gcs(folder: Path) -> AsyncIterator[Gcs]:
    """Serve a storage service on a free loopback port.

    Args:
        folder: where its key file is written.

    Yields:
        the service, once connections are accepted; it ends at once with the block.
    """
    gcs = Gcs(folder)
    async with open_server(gcs.app) as gcs.url:
        gcs.write_key_file(gcs.key_file)
        yield gcs
