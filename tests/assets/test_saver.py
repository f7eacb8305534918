"""The saver as a whole: order of things, early refusals, and what it costs to load."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.storage import open_asset_storage, to_be_written
from emp_trio.assets.stores import Blob, Stored
from emp_trio.connector_context import AssetSaving, ConnectorContext
from emp_trio.errors import AssetError, ConfigError, InvalidJob, ServiceError
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job, pieces

PNG = make_png()


def local(folder: Path) -> StorageSettings:
    return local_storage(folder)


async def test_nothing_configured_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_asset_storage(StorageSettings()) as saver:
        with pytest.raises(ConfigError, match=r"CLOUD_STORAGE_PROVIDER=local with LOCAL_STORAGE_PATH"):
            saver.check(a_job())
        with pytest.raises(
            ConfigError, match=r"CLOUD_STORAGE_PROVIDER to azure, gcs, local or s3, with CLOUD_STORAGE_CONTAINER"
        ):
            await saver.save(PNG, a_job(), FakeAttempt())
    assert list(tmp_path.iterdir()) == []


async def test_an_unsafe_job_is_refused_before_its_stream_is_read(tmp_path: Path) -> None:
    async def untouchable() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async with open_asset_storage(local(tmp_path)) as saver:
        job = a_job(filename="../../etc/passwd")
        with pytest.raises(InvalidJob, match=r"ctx\.filename"):
            saver.check(job)
        with pytest.raises(InvalidJob, match=r"ctx\.filename"):
            await saver.save(untouchable(), job, FakeAttempt())
    assert list(tmp_path.iterdir()) == []


async def test_type_and_name_follow_the_content(tmp_path: Path) -> None:
    async with open_asset_storage(local(tmp_path)) as saver:
        job = a_job(filename="x.jpeg")
        saved = await saver.save(f"data:image/jpeg;base64,{base64.b64encode(PNG).decode()}", job, FakeAttempt())
        assert (saved.file_name, saved.media_type) == ("x.png", "image/png")
        saved = await saver.save(b"\x93\x94", a_job("a"), FakeAttempt(), media_type="audio/mp3")
        assert (saved.file_name, saved.media_type) == ("a_0.mp3", "audio/mpeg")
        saved = await saver.save("data:audio/wav;base64,k5Q=", a_job("b"), FakeAttempt())
        assert saved.media_type == "audio/wav"
        saved = await saver.save("Grüße".encode(), a_job("c"), FakeAttempt(), media_type="text/plain")
        assert (tmp_path / "c_0.txt").read_text("utf-8") == "Grüße"
        assert saved.output_file().type == "text"


async def test_bad_data_is_the_services_failure_and_stores_nothing(tmp_path: Path) -> None:
    async with open_asset_storage(local(tmp_path)) as saver:
        for data in ("not base64!", b"", pieces(b""), None):
            with pytest.raises(ServiceError) as caught:
                await saver.save(data, a_job(), FakeAttempt())
            assert caught.value.type == "response_error"
    assert list(tmp_path.iterdir()) == []


async def test_a_stream_is_read_in_the_services_time(tmp_path: Path) -> None:
    """A stalled download is the service's delay: neither the upload stage nor its limit has begun."""
    context = FakeAttempt()
    stages: list[str] = []
    real = context.stages.stage
    context.stages.stage = lambda name: (stages.append(name), real(name))[1]  # type: ignore[method-assign]

    async def service() -> AsyncIterator[bytes]:
        yield PNG[:100]
        await trio.lowlevel.checkpoint()
        assert stages == []
        yield PNG[100:]

    async with open_asset_storage(local(tmp_path)) as saver:
        await saver.save(service(), a_job(), context)
    assert stages == ["upload"]  # and no cdn stage where there is no CDN


def test_the_saver_is_what_the_toolbox_wants(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_asset_storage(local(tmp_path)) as saver:
            tool: AssetSaving = saver
            assert ConnectorContext(assets=tool).assets is saver

    trio.run(main)


BLOB = Blob(key="k", media_type="a/b", cache_control="", size=3, sha256="abc", owner="job-1", workflow="w")


def stored(owner: str | None, workflow: str | None = None, *, size: int = 3, sha256: str | None = "abd") -> Stored:
    return Stored(size=size, sha256=sha256, owner=owner, workflow=workflow, version="1")


@pytest.mark.parametrize(
    ("there", "written"),
    [
        (None, True),
        (stored("job-1", sha256="abc"), False),
        (stored("job-2", sha256="abc"), False),  # the very content: whose it is is no matter
        (stored(None, sha256="abc"), False),
        (stored("job-1"), True),
        (stored("job-1", "another"), True),
        (stored("job-1", size=4, sha256="abc"), True),
        (stored("job-2", "w"), True),
    ],
)
def test_what_is_written_over_what(there: Stored | None, written: bool) -> None:
    assert to_be_written(BLOB, there, overwrite=False) is written
    assert to_be_written(BLOB, there, overwrite=True) is written


@pytest.mark.parametrize("there", [stored("job-2"), stored(None), stored("job-2", "x"), stored(None, sha256=None)])
def test_another_jobs_asset_is_not_written_over(there: Stored) -> None:
    with pytest.raises(AssetError, match="another job") as caught:
        to_be_written(BLOB, there, overwrite=False)
    assert "ctx.overwrite" in caught.value.message
    assert not caught.value.retry
    assert to_be_written(BLOB, there, overwrite=True)


def test_no_workflow_is_nobodys_workflow() -> None:
    with pytest.raises(AssetError, match="another job"):
        to_be_written(msgspec.structs.replace(BLOB, workflow=None), stored("job-2", None), overwrite=False)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, emp_trio.assets.storage, emp_trio.assets.config\n"
        "emp_trio.assets.config.storage_settings({})\n"
        "heavy = ('azure', 'boto3', 'botocore', 'google', 'httpx', 'requests', 'starlette', 'urllib3')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
