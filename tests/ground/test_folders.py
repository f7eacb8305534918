"""Folders for this user alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emp_trio.folders import check_own, own_folder, private_opener


def test_what_is_made_is_private_all_the_way(tmp_path: Path) -> None:
    own_folder(tmp_path / "a" / "b" / "c")
    for place in ("a", "a/b", "a/b/c"):
        assert (tmp_path / place).stat().st_mode & 0o777 == 0o700
    own_folder(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770, 0o777, 0o1777, 0o722, 0o744])
def test_a_folder_that_others_may_look_into_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="this user alone: chmod 700"):
        own_folder(folder)
    assert folder.stat().st_mode & 0o7777 == mode, "nobody's folder is changed behind his back"


def test_a_link_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PermissionError, match="symbolic link"):
        own_folder(tmp_path / "link")
    for name in ("file", "dangling", "file/below"):
        with pytest.raises(OSError, match=r"."):
            own_folder(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to another user"):
        check_own(tmp_path / "theirs")


def test_a_private_file_goes_through_no_link(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb", opener=private_opener):
        pass
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(OSError, match=r"."):
        private_opener(str(tmp_path / "link"), os.O_WRONLY)
