"""The local store: whole files or none, inside its folder, and clear words where the disk says no."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

import pytest
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores import Blob
from emp_trio.assets.stores.blocking import CancelToken, Reader, in_thread
from emp_trio.assets.stores.providers.local.store import LocalStore
from emp_trio.errors import AssetError
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job, pieces

PNG = make_png()


def a_blob(key: str, data: bytes) -> Blob:
    return Blob(
        key=key,
        media_type="image/png",
        cache_control="",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        owner="job-1",
    )


def local(folder: Path) -> StorageSettings:
    return local_storage(folder)


async def test_an_asset_lies_where_its_address_says(tmp_path: Path) -> None:
    async with open_asset_storage(local(tmp_path / "new")) as saver:
        saved = await saver.save(PNG, a_job(prefix="a b/ü"), FakeAttempt(), media_type="image/jpeg")
    assert saved.file_path == "a b/ü/job-1_0.png"
    assert (saved.file_name, saved.media_type, saved.size) == ("job-1_0.png", "image/png", len(PNG))
    assert saved.sha256 == hashlib.sha256(PNG).hexdigest()
    assert saved.cdn_url == saved.file_url
    assert saved.file_url.startswith("file:///")
    path = Path(unquote(urlsplit(saved.file_url).path))
    assert path.read_bytes() == PNG
    for place, mode in ((path, 0o600), (path.parent, 0o700), (path.parent.parent, 0o700), (tmp_path / "new", 0o700)):
        assert place.stat().st_mode & 0o777 == mode
    assert [p.name for p in path.parent.iterdir()] == ["job-1_0.png"]


async def test_a_repeated_save_finds_its_earlier_upload(tmp_path: Path) -> None:
    async with open_asset_storage(local(tmp_path)) as saver:
        first = await saver.save(PNG, a_job(), FakeAttempt())
        before = (tmp_path / first.file_path).stat()
        assert await saver.save(pieces(PNG), a_job(), FakeAttempt()) == first
        assert (tmp_path / first.file_path).stat() == before  # not even the inode changed
        other = make_png(seed=1)
        assert (await saver.save(other, a_job(), FakeAttempt())).file_path == first.file_path
        assert (tmp_path / first.file_path).read_bytes() == other


async def test_outputs_of_one_job_have_names_of_their_own(tmp_path: Path) -> None:
    async with open_asset_storage(local(tmp_path)) as saver, trio.open_nursery() as nursery:
        for index in range(20):
            nursery.start_soon(_save, saver, make_png(seed=index), index)
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "link/x", "link/../../x", "a\x00b", ".", ""])
async def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    store = LocalStore(folder)

    def put(cancel: CancelToken) -> None:
        store.put(a_blob(key, PNG), Reader(io.BytesIO(PNG), cancel), None, cancel)

    for call in (put, lambda cancel: store.head(key, cancel)):
        with pytest.raises(AssetError, match="leads out of the folder"):
            await in_thread(call, trio.CapacityLimiter(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["assets"]


async def test_a_cancelled_write_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    read = []

    class Slow:
        """A file during whose third block the cancel comes."""

        def seek(self, to: int) -> None:
            pass

        def read(self, size: int) -> bytes:
            read.append(size)
            if len(read) == 3:
                trio.from_thread.run_sync(scope.cancel)
            return bytes(size)

    def put(cancel: CancelToken) -> None:
        store.put(a_blob("x/y.png", b"x"), Reader(cast(IO[bytes], Slow()), cancel), None, cancel)

    with trio.CancelScope() as scope:
        await in_thread(put, trio.CapacityLimiter(1))
    assert scope.cancelled_caught
    assert len(read) == 3
    assert list((tmp_path / "x").iterdir()) == []


async def test_something_else_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    (tmp_path / "job-1_0.png").mkdir()
    async with open_asset_storage(local(tmp_path)) as saver:
        for job in (a_job(prefix="a"), a_job()):
            with pytest.raises(AssetError, match="another one") as caught:
                await saver.save(PNG, job, FakeAttempt())
            assert not caught.value.retry


_IN_A_PROCESS = """
import json, os, resource, signal, sys
import trio
from pathlib import Path
from emp_trio.assets.storage import open_asset_storage
from emp_trio.assets.stores.providers.local import store  # now: without privileges it may be out of reach
from emp_trio.errors import AssetError
from emp_trio.retry import RetryPolicy
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.storage import local_storage
from emp_trio.jobs import Job

async def main(kind, folder):
    settings = local_storage(Path(folder), retry=RetryPolicy(retries=1, base=0.01))
    async with open_asset_storage(settings) as saver:
        if kind == "full":  # the nearest thing to a full disk that needs no privilege
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        if kind == "denied" and os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            await saver.save(bytes(3_000_000), Job(id="j", type="t"), FakeAttempt())
        except AssetError as error:
            print(json.dumps([error.type, error.reason, error.retry, error.paid, str(error)]))

trio.run(main, *sys.argv[1:])
"""


def _in_a_process(kind: str, folder: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS, kind, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_full_disk(tmp_path: Path) -> None:
    kind, reason, retry, paid, text = _in_a_process("full", tmp_path)
    assert (kind, reason, retry, paid) == ("resource_limit", "disk_space_full", True, True)
    assert str(tmp_path) in text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    kind, reason, retry, _, text = _in_a_process("denied", folder)
    assert (kind, reason, retry) == ("system_error", "config_error", False)
    assert "LOCAL_STORAGE_PATH" in text


async def _save(saver: Any, data: bytes, index: int) -> None:
    saved = await saver.save(data, a_job(), FakeAttempt(), index=index)
    assert saved.file_name == f"job-1_{index}.png"
