"""Assets in a folder of this machine: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from emp_trio.assets.naming import RESERVED
from emp_trio.assets.stores import Blob, Stored, storage_failure
from emp_trio.assets.stores.blocking import Reader, Wire
from emp_trio.errors import AssetError

_BLOCK: Final = 2**20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class LocalStore:
    """A folder, made when the first asset comes.

    A file keeps no note of the job it belongs to: a name of ours holds the job's id, and that is enough here. Files
    whose writer was killed remain as ``.emp-trio-*`` and can be deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self, key: str, wire: Wire) -> Stored | None:
        """What lies at ``key``, measured by reading it."""
        with self._failures("read", key):
            path = self._path(key)
            try:
                file = path.open("rb")
            except FileNotFoundError:
                return None
            with file:
                size, digest = 0, hashlib.sha256()
                while block := file.read(_BLOCK):
                    wire.check()
                    size += len(block)
                    digest.update(block)
        return Stored(size=size, sha256=digest.hexdigest())

    def put(self, blob: Blob, body: Reader, over: Stored | None, wire: Wire) -> None:
        """Write the asset; a cancel leaves nothing behind."""
        with self._failures("written", blob.key):
            path = self._path(blob.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.parent / f"{RESERVED}{secrets.token_hex(8)}"
            try:
                with unfinished.open("xb") as file:
                    _copy(body, file)
                unfinished.replace(path)
            except BaseException:
                with suppress(FileNotFoundError):
                    unfinished.unlink()
                raise
            _sync_folder(path.parent)

    def url(self, key: str) -> str:
        """A ``file://`` address."""
        return (self._folder / key).as_uri()

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, key: str) -> Path:
        """The path of a key. Whatever the key says and whatever links lie around, it is inside the folder."""
        root = self._folder.resolve()
        path = root / key
        if "\x00" in key or ".." in path.parts or not path.parent.resolve().is_relative_to(root) or path == root:
            raise storage_failure(
                f"the key {key[:80]!r} leads out of the folder {self._folder}",
                type="validation_error",
                reason="invalid_payload",
                retry=False,
            )
        return path

    @contextmanager
    def _failures(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _failure(error, f"the asset {key!r} can't be {verb} in {self._folder}") from error


def _copy(body: Reader, file: IO[bytes]) -> None:
    while block := body.read(_BLOCK):
        file.write(block)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename last: it is an entry of the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failure(error: OSError, what: str) -> AssetError:
    what = f"{what}: {error.strerror}"
    if error.errno in _FULL:
        return storage_failure(
            what, hint="Make room on that disk", type="resource_limit", reason="disk_space_full", retry=True
        )
    if error.errno in _DENIED:
        return storage_failure(
            what,
            hint="The worker needs to write to LOCAL_STORAGE_PATH",
            type="system_error",
            reason="config_error",
            retry=False,
        )
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        return storage_failure(
            what,
            hint="Something else has that name; give ctx.prefix or ctx.filename another one",
            type="validation_error",
            reason="invalid_payload",
            retry=False,
        )
    return storage_failure(what, type="system_error", reason="internal_error", retry=True)
