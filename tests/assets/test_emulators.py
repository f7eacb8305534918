"""The stores for tests are as strict as the real ones where it matters."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError

from emp_trio.assets.config import storage_settings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.gcs import open_gcs
from emp_trio.testing.s3 import S3, _client
from tests.assets.support import a_job


async def test_the_google_emulator_wants_a_token_and_nothing_unknown(tmp_path: Path) -> None:
    tokens = []
    async with open_gcs(tmp_path) as gcs, httpx.AsyncClient(base_url=gcs.url) as client:
        gcs.create_bucket("assets")
        assert (await client.get("/storage/v1/b/assets/o/x")).status_code == 401
        assert (await client.post("/token", content=b"grant_type=x&assertion=y")).status_code == 400

        gcs.fault = lambda request: tokens.append(request.headers["authorization"])
        async with open_asset_storage(storage_settings(gcs.environment("assets"))) as saver:
            saved = await saver.save(b"words", a_job(), FakeAttempt())
        gcs.fault = lambda request: None
        assert (await client.get(f"/assets/{saved.file_path}")).content == b"words"

        signed = {"authorization": tokens[0]}
        upload = "/upload/storage/v1/b/assets/o?uploadType=resumable"
        assert (await client.get("/storage/v1/b/assets/o/x", headers=signed)).status_code == 404
        assert (await client.get("/storage/v1/b/assets/o/x?fields=a", headers=signed)).status_code == 400
        begin = signed | {"x-upload-content-length": "300000", "x-upload-content-type": "a/b"}
        session = (await client.post(upload, json={"name": "x"}, headers=begin)).headers["location"]
        for span, size, status in (
            ("bytes 5-9/300000", 5, 400),  # does not begin where it should
            ("bytes 0-99999/300000", 100_000, 400),  # not a multiple of 256 KiB
        ):
            answer = await client.put(session, content=bytes(size), headers=signed | {"content-range": span})
            assert answer.status_code == status
        assert "x" not in gcs.objects["assets"]


def test_the_s3_emulator_checks_signatures(s3: S3) -> None:
    stranger = _client("s3", s3.endpoint, s3.key_id, "wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.create_bucket(Bucket="strangers")
