"""Open and write files below a folder without following links, and store metadata with them.

A path is opened folder by folder (``openat`` with ``O_NOFOLLOW``), so that concurrent changes can't lead outside. The
metadata (its owner) is an extended attribute; on file systems without them, it is a file beside it, which is valid only
for the content with its digest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from emp_trio.assets.naming import RESERVED
from emp_trio.assets.stores.blocking import CancelToken
from emp_trio.folders import make_private

_ATTRIBUTE: Final = "user.emp_trio"
_LONGEST_NOTE: Final = 4096
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL: Final = 0.005  # seconds between attempts to get the lock
_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ENOSPC, errno.E2BIG})


class Linked(OSError):
    """A part of a path is a symbolic link."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a file: marks of its job and workflow, and the digest of the content it belongs to."""

    owner: str
    sha256: str
    workflow: str | None = None


@contextmanager
def open_parent(root: Path, parts: tuple[str, ...], *, make: bool) -> Iterator[int]:
    """Open the parent folder of the last of ``parts``, for the block.

    Args:
        root: folder that is not a link; its parents may be.
        make: create missing folders, for this user alone.

    Raises:
        Linked: the root or a part is a symbolic link.
        OSError: a part does not exist, is not a folder, or can't be created.
    """
    if make:
        make_private(root)
    folder = _opened(str(root), None)
    try:
        for part in parts[:-1]:
            try:
                inner = _opened(part, folder)
            except FileNotFoundError:
                if not make:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=folder)
                inner = _opened(part, folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def open_file(name: str, folder: int) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        Linked: it is a symbolic link.
        OSError: it does not exist, or is not a regular file.
    """
    try:
        # Non-blocking: a pipe of that name must not block the thread.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise _as_linked(error, name, folder) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EEXIST
        raise OSError(code, os.strerror(code), name)
    return os.fdopen(descriptor, "rb")


@contextmanager
def new_file(folder: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Create a file for this user alone, for :func:`put_in_place`. It is removed if not renamed."""
    name = f"{RESERVED}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
            yield name, file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


@contextmanager
def locked(folder: int, cancel: CancelToken) -> Iterator[None]:
    """Lock a folder against other writers of emp-trio during the block. Waiting for the lock is cancellable."""
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            cancel.check()
            time.sleep(_POLL)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def put_in_place(unfinished: str, file: IO[bytes], name: str, folder: int, note: Note) -> None:
    """Rename a written file to its final name, with its metadata; durable after a power failure.

    Replaces any file of that name. Call it within :func:`locked`.
    """
    encoded = msgspec.json.encode(note)
    try:
        os.setxattr(file.fileno(), _ATTRIBUTE, encoded)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        # Before the rename, and with the earlier note: after a crash, either content has its owner.
        _write(_note_name(name), msgspec.json.encode([note, *_notes(name, folder)[:1]]), folder)
    os.fsync(file.fileno())
    os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def note_of(file: IO[bytes], name: str, folder: int, sha256: str) -> Note | None:
    """Return the metadata of an open file whose content has this digest, or None."""
    try:
        return msgspec.json.decode(os.getxattr(file.fileno(), _ATTRIBUTE), type=Note)
    except (OSError, AttributeError, msgspec.MsgspecError):
        return next((note for note in _notes(name, folder) if note.sha256 == sha256), None)


def _notes(name: str, folder: int) -> list[Note]:
    try:
        with open_file(_note_name(name), folder) as file:
            return msgspec.json.decode(file.read(_LONGEST_NOTE), type=list[Note])
    except (OSError, msgspec.MsgspecError):
        return []


def _note_name(name: str) -> str:
    return f"{RESERVED}about-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


def _write(name: str, content: bytes, folder: int) -> None:
    with new_file(folder) as (unfinished, file):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)


def _opened(name: str, folder: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _as_linked(error, name, folder) from None


def _as_linked(error: OSError, name: str, folder: int | None) -> OSError:
    """Return ``error``, or Linked if the name is a link: systems report that differently."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        with suppress(OSError):
            if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                return Linked(errno.ELOOP, "it is a symbolic link", name)
    return error
