"""The local store and what lies in its way: links, pipes, strangers' files, and file systems that remember little."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.storage import AssetStorage, open_asset_storage
from emp_trio.assets.stores.blocking import in_thread
from emp_trio.assets.stores.providers.local.store import LocalStore
from emp_trio.errors import AssetError, ConfigError, InvalidJob
from emp_trio.retry import RetryPolicy
from emp_trio.testing.attempt import FakeAttempt
from emp_trio.testing.png import make_png
from emp_trio.testing.storage import local_storage
from tests.assets.support import a_job

PNG = make_png()
OTHER = make_png(seed=1)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """LOCAL_STORAGE_PATH, and a folder beside it that is none of the store's."""
    root, outside = tmp_path / "assets", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "job-1_0.png").write_bytes(b"precious")
    return root, outside


def settings(root: Path, container: str | None = None) -> StorageSettings:
    return local_storage(root, container=container)


async def refused(root: Path, container: str | None = None, **ctx: Any) -> None:
    async with open_asset_storage(settings(root, container)) as saver:
        with pytest.raises(AssetError, match="leads out of the folder") as caught:
            await saver.save(PNG, a_job(**ctx), FakeAttempt())
    assert caught.value.type == "validation_error"
    assert not caught.value.retry
    assert "symbolic link" in caught.value.message


def untouched(outside: Path) -> bool:
    return [(p.name, p.read_bytes()) for p in outside.iterdir()] == [("job-1_0.png", b"precious")]


@pytest.mark.parametrize("way", ["settings", "job"])
@pytest.mark.parametrize("inward", [False, True], ids=["out of the folder", "to another container"])
async def test_a_container_that_is_a_link(places: tuple[Path, Path], way: str, inward: bool) -> None:
    root, outside = places
    (root / "real").mkdir()
    (root / "shop").symlink_to(root / "real" if inward else outside, target_is_directory=True)
    error, ctx, container = (InvalidJob, {"bucket": "shop"}, None) if way == "job" else (ConfigError, {}, "shop")
    async with open_asset_storage(settings(root, container)) as saver:
        with pytest.raises(error, match=r"leads out of the folder.*symbolic link"):
            saver.check(a_job(**ctx))  # before anything is paid
        with pytest.raises(error, match=r"leads out of the folder.*symbolic link"):
            await saver.save(PNG, a_job(**ctx), FakeAttempt())
    store = LocalStore(root / "shop")
    with pytest.raises(AssetError, match="symbolic link"):
        await in_thread(lambda cancel: store.head("job-1_0.png", cancel), trio.CapacityLimiter(1))
    assert untouched(outside)
    assert list((root / "real").iterdir()) == []


@pytest.mark.parametrize("place", ["a", "a/b", "a/b/c"])
async def test_a_part_of_the_prefix_that_is_a_link(places: tuple[Path, Path], place: str) -> None:
    root, outside = places
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).symlink_to(outside, target_is_directory=True)
    (outside / "kept").mkdir()
    await refused(root, prefix="a/b/c")
    assert sorted(p.name for p in outside.iterdir()) == ["job-1_0.png", "kept"]


@pytest.mark.parametrize("target", ["job-1_0.png", "nothing"])
async def test_a_name_that_is_a_link(places: tuple[Path, Path], target: str) -> None:
    root, outside = places
    (root / "job-1_0.png").symlink_to(outside / target)
    await refused(root)
    await refused(root, overwrite=True)
    assert untouched(outside)


async def test_the_operators_own_link_to_all_of_it_is_followed(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(places[0], target_is_directory=True)
    async with open_asset_storage(settings(tmp_path / "link", "shop")) as saver:
        await saver.save(PNG, a_job(), FakeAttempt())
    assert (places[0] / "shop" / "job-1_0.png").read_bytes() == PNG


async def test_a_pipe_does_not_hold_the_thread(places: tuple[Path, Path]) -> None:
    os.mkfifo(places[0] / "job-1_0.png")
    async with open_asset_storage(settings(places[0])) as saver:
        with trio.fail_after(60), pytest.raises(AssetError, match="another one"):
            await saver.save(PNG, a_job(), FakeAttempt())


async def test_a_folder_of_the_operators_keeps_its_mode(places: tuple[Path, Path]) -> None:
    places[0].chmod(0o755)
    async with open_asset_storage(settings(places[0])) as saver:
        await saver.save(PNG, a_job(prefix="p"), FakeAttempt())
    assert places[0].stat().st_mode & 0o777 == 0o755
    assert (places[0] / "p").stat().st_mode & 0o777 == 0o700
    assert (places[0] / "p/job-1_0.png").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_nobody_has_signed_is_replaced_on_demand_only(places: tuple[Path, Path]) -> None:
    """Another worker of the fleet, or a person, has put it there."""
    (places[0] / "cat.png").write_bytes(b"precious")
    async with open_asset_storage(settings(places[0])) as saver:
        with pytest.raises(AssetError, match="another job or program"):
            await saver.save(PNG, a_job(filename="cat.png"), FakeAttempt())
        assert (places[0] / "cat.png").read_bytes() == b"precious"
        await saver.save(PNG, a_job(filename="cat.png", overwrite=True), FakeAttempt())
    assert (places[0] / "cat.png").read_bytes() == PNG


async def _ownership(saver: AssetStorage) -> None:
    await saver.save(PNG, a_job("one", filename="cat.png"), FakeAttempt())
    with pytest.raises(AssetError, match="another job"):
        await saver.save(OTHER, a_job("two", filename="cat.png"), FakeAttempt())
    await saver.save(OTHER, a_job("one", filename="cat.png"), FakeAttempt())
    await saver.save(PNG, a_job("two", filename="cat.png", overwrite=True), FakeAttempt())
    with pytest.raises(AssetError, match="another job"):
        await saver.save(OTHER, a_job("one", filename="cat.png"), FakeAttempt())
    await saver.save(OTHER, a_job("two", filename="cat.png"), FakeAttempt())


async def test_a_file_system_without_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_attributes(*args: Any) -> bytes:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", no_attributes, raising=False)
    monkeypatch.setattr(os, "getxattr", no_attributes, raising=False)
    async with open_asset_storage(settings(tmp_path)) as saver:
        await _ownership(saver)
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
        (tmp_path / "cat.png").write_bytes(b"by hand")  # the note beside it counts for another content
        with pytest.raises(AssetError, match="another job"):
            await saver.save(PNG, a_job("two", filename="cat.png"), FakeAttempt())


async def test_a_system_without_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("setxattr", "getxattr"):
        monkeypatch.delattr(os, name, raising=False)
    async with open_asset_storage(settings(tmp_path)) as saver:
        await _ownership(saver)


async def test_a_crash_between_note_and_content_costs_nobody_his_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("setxattr", "getxattr"):
        monkeypatch.delattr(os, name, raising=False)
    rename, dies = os.rename, [False]

    def torn(source: Any, target: Any, **more: Any) -> None:
        if dies[0] and target == "cat.png":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", torn)
    once = msgspec.structs.replace(settings(tmp_path), retry=RetryPolicy(retries=0))
    async with open_asset_storage(once) as saver:
        await saver.save(PNG, a_job("one", filename="cat.png"), FakeAttempt())
        dies[0] = True
        with pytest.raises(AssetError, match="Input/output error"):
            await saver.save(OTHER, a_job("two", filename="cat.png", overwrite=True), FakeAttempt())
        dies[0] = False
        await saver.save(OTHER, a_job("one", filename="cat.png"), FakeAttempt())
    assert (tmp_path / "cat.png").read_bytes() == OTHER


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"owner": 5, "sha256": "x"}', bytes(100)])
async def test_a_note_that_is_none_says_nothing(tmp_path: Path, value: bytes) -> None:
    if not hasattr(os, "setxattr"):
        pytest.skip("this system has no extended attributes")
    (tmp_path / "cat.png").write_bytes(b"x")
    try:
        os.setxattr(tmp_path / "cat.png", "user.emp_trio", value)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    async with open_asset_storage(settings(tmp_path)) as saver:
        with pytest.raises(AssetError, match="another job"):
            await saver.save(PNG, a_job(filename="cat.png"), FakeAttempt())
