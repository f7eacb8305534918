"""The stores as the contract tests see them: how to reach each, what lies in it, and how to put it out of order."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from emp_trio.assets.config import StorageSettings, storage_settings
from emp_trio.retry import RetryPolicy
from emp_trio.testing.azurite import Azurite
from emp_trio.testing.gcs import open_gcs
from emp_trio.testing.s3 import S3
from tests.assets.support import Line


class Facts(msgspec.Struct, frozen=True):
    """What a store has at a key; the fields are None where it keeps no such thing."""

    content: bytes
    version: str
    media_type: str | None = None
    cache_control: str | None = None
    owner: str | None = None
    sha256: str | None = None


class Backend:
    """A store with an empty container.

    Attributes:
        endpoint: its base URL, None for a folder.
        environment: the variables of a worker that uses it.
        wrong_key: variables that make the worker's credentials wrong.
    """

    endpoint: str | None = None

    def __init__(self, environment: dict[str, str], wrong_key: dict[str, str]) -> None:
        self.environment = environment
        self.wrong_key = wrong_key

    def settings(self, line: Line | None = None, *, read_timeout: float = 30.0, **env: str) -> StorageSettings:
        """Settings of a quick worker, perhaps through a line, with some variables changed."""
        environment = self.environment | env
        if line is not None and self.endpoint is not None:
            through = line.endpoint(self.endpoint)
            environment = {k: through if v == self.endpoint else v for k, v in environment.items()}
        quick = RetryPolicy(retries=2, base=0.05, cap=0.2)
        return msgspec.structs.replace(storage_settings(environment), retry=quick, read_timeout=read_timeout)

    def facts(self, key: str) -> Facts | None:
        """What lies at a key."""
        raise NotImplementedError

    def unfinished(self) -> int:
        """Uploads that the store still waits for."""
        return 0


class AzureBackend(Backend):
    """Azurite."""

    def __init__(self, azurite: Azurite) -> None:
        self._azurite = azurite
        self.endpoint = azurite.endpoint
        self._container = f"c{uuid.uuid4().hex[:12]}"
        azurite.create_container(self._container, public=True)
        super().__init__(azurite.environment(self._container), {"AZURE_STORAGE_KEY": "d3JvbmcgYnV0IGJhc2U2NA=="})

    def facts(self, key: str) -> Facts | None:
        with self._azurite.client() as client:
            blob = client.get_blob_client(self._container, key)
            if not blob.exists():
                return None
            found: Any = blob.get_blob_properties()
            about = found.content_settings
            return Facts(
                blob.download_blob().readall(),
                found.etag,
                about.content_type,
                about.cache_control,
                found.metadata["job_id"],
                found.metadata["sha256"],
            )


class S3Backend(Backend):
    """moto."""

    def __init__(self, s3: S3) -> None:
        self.endpoint = s3.endpoint
        self._client = s3.client
        self._bucket = f"c{uuid.uuid4().hex[:12]}"
        s3.create_bucket(self._bucket)
        super().__init__(s3.environment(self._bucket), {"AWS_SECRET_ACCESS_KEY": "wrong"})

    def facts(self, key: str) -> Facts | None:
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=key)
        except self._client.exceptions.NoSuchKey:
            return None
        return Facts(
            found["Body"].read(),
            found["ETag"] + str(found["LastModified"]),
            found["ContentType"],
            found["CacheControl"],
            found["Metadata"]["job_id"],
            found["Metadata"]["sha256"],
        )

    def unfinished(self) -> int:
        return len(self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", []))


class GcsBackend(Backend):
    """The strict emulator."""

    def __init__(self, gcs: Any, folder: Path) -> None:
        self.gcs = gcs
        self.endpoint = gcs.url
        gcs.create_bucket("assets")
        gcs.write_key_file(folder / "wrong.json", known=False)
        super().__init__(gcs.environment("assets"), {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "wrong.json")})

    def facts(self, key: str) -> Facts | None:
        if key not in self.gcs.objects["assets"]:
            return None
        about, content = self.gcs.objects["assets"][key]
        notes = about["metadata"]
        return Facts(
            content, about["generation"], about["contentType"], about["cacheControl"], notes["job_id"], notes["sha256"]
        )


class LocalBackend(Backend):
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "assets"
        super().__init__({"CLOUD_STORAGE_PROVIDER": "local", "LOCAL_STORAGE_PATH": str(self._folder)}, {})

    def facts(self, key: str) -> Facts | None:
        path = self._folder / key
        if not path.exists():
            return None
        return Facts(path.read_bytes(), str(path.stat().st_ino))

    def unfinished(self) -> int:
        return len(list(self._folder.rglob(".emp-trio-*")))


@asynccontextmanager
async def open_backend(name: str, folder: Path, running: Any) -> AsyncIterator[Backend]:
    """One of the stores, by the name of its provider.

    Args:
        running: the session's Azurite or S3 where the store is one of those.
    """
    if name == "azure":
        yield AzureBackend(running)
    elif name == "s3":
        yield S3Backend(running)
    elif name == "local":
        yield LocalBackend(folder)
    else:
        async with open_gcs(folder) as gcs:
            yield GcsBackend(gcs, folder)
