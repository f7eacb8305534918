"""Create and check folders that only this user can access."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def own_folder(folder: Path) -> None:
    """Create a folder for this user alone, with missing parents, or check that an existing one is.

    Raises:
        OSError: it can't be created, or fails :func:`check_own`; ``strerror`` has the reason.
    """
    make_private(folder)
    check_own(folder)


def check_own(folder: Path) -> None:
    """Check that a folder exists, that only this user can read and write it, and that it is not a symbolic link.

    Raises:
        FileNotFoundError: it does not exist.
        PermissionError: a check failed; ``strerror`` has the reason and the remedy.
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
    """Create a folder and its missing parents with mode 700. Leave an existing folder unchanged.

    Raises:
        OSError: it can't be created.
    """
    missing = []
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        missing.append(place)
        place = place.parent
    for place in reversed(missing):
        with suppress(FileExistsError):  # created meanwhile; the next step checks that it is a folder
            place.mkdir(mode=0o700)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def private_opener(path: str, flags: int) -> int:
    """Open a file that only this user can read, without following links, as ``open(..., opener=private_opener)``."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
