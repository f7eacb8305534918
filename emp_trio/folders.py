"""Folders for this user alone: made so, or seen to be so before anything in them is trusted."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def own_folder(folder: Path) -> None:
    """Make a folder for this user alone, with what is missing above it, or see that it is one.

    Raises:
        OSError: it can't be made, or see :func:`check_own`; ``strerror`` says why.
    """
    make_private(folder)
    check_own(folder)


def check_own(folder: Path) -> None:
    """See that a folder is there for this user alone: nobody else can read it, put files into it, or has led us to it
    by a link.

    Raises:
        FileNotFoundError: it is not there.
        PermissionError: it is something else; ``strerror`` says what, and what to do.
    """
    about = folder.lstat()
    if stat.S_ISLNK(about.st_mode):
        wrong = "it is a symbolic link: name the folder itself"
    elif not stat.S_ISDIR(about.st_mode):
        wrong = "it is not a folder"
    elif about.st_uid != os.geteuid():
        wrong = f"it belongs to another user (uid {about.st_uid}): name another folder"
    elif about.st_mode & 0o077:
        wrong = f"it is not for this user alone: chmod 700 {folder}"
    else:
        return
    raise PermissionError(errno.EPERM, wrong, str(folder))


def make_private(folder: Path) -> None:
    """Make a folder that is not there, and what is missing above it, with mode 700. One that is there stays as it is.

    Raises:
        OSError: it can't be made.
    """
    missing = []
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        missing.append(place)
        place = place.parent
    for place in reversed(missing):
        with suppress(FileExistsError):  # somebody was quicker; whether it is a folder shows in the next step
            place.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def private_opener(path: str, flags: int) -> int:
    """For ``open(..., opener=private_opener)``: a file that this user alone can read, and never through a link."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
