"""Store assets in a folder of this machine: written to a temporary file, synced, then renamed."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from emp_trio.assets.stores import Blob, Stored, storage_failure
from emp_trio.assets.stores.blocking import CancelToken, Reader
from emp_trio.assets.stores.providers.local.files import (
    Linked,
    Note,
    locked,
    new_file,
    note_of,
    open_file,
    open_parent,
    put_in_place,
)
from emp_trio.errors import AssetError
from emp_trio.secrets import excerpt

_BLOCK: Final = 2**20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class LocalStore:
    """A folder, created with the first asset; files and folders have modes 600 and 700.

    Links are not followed (:mod:`~emp_trio.assets.stores.providers.local.files`). A killed writer leaves files named
    ``.emp-trio-*``, which can be deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self, key: str, cancel: CancelToken) -> Stored | None:
        """Return the file under ``key``, with the digest computed by reading it."""
        with self._failures("read", key):
            parts = self._parts(key)
            try:
                with open_parent(self._folder, parts, make=False) as folder:
                    return _look(parts[-1], folder, cancel)
            except FileNotFoundError:
                return None

    def put(self, blob: Blob, body: Reader, over: Stored | None, cancel: CancelToken) -> None:
        """Write the asset. Cancellation leaves no file."""
        with self._failures("written", blob.key):
            parts = self._parts(blob.key)
            with open_parent(self._folder, parts, make=True) as folder, new_file(folder) as (unfinished, file):
                while block := body.read(_BLOCK):
                    file.write(block)
                file.flush()
                with locked(folder, cancel):
                    if _look(parts[-1], folder, cancel) != over:
                        raise storage_failure(
                            f"the asset {blob.key!r} can't be written in {self._folder}: it has changed meanwhile",
                            hint="Somebody else is writing it",
                            type="service_error",
                            reason="degraded_performance",
                            retry=True,
                        )
                    note = Note(owner=blob.owner, workflow=blob.workflow, sha256=blob.sha256)
                    put_in_place(unfinished, file, parts[-1], folder, note)

    def url(self, key: str) -> str:
        """Return a ``file://`` URL."""
        return (self._folder / key).as_uri()

    def close(self) -> None:
        """Do nothing: nothing is kept open."""

    def _parts(self, key: str) -> tuple[str, ...]:
        """Split a key into parts, which never lead outside the folder."""
        parts = tuple(key.split("/"))
        if "\x00" in key or set(parts) & {"", ".", ".."}:
            raise self._leads_out(key)
        return parts

    def _leads_out(self, key: str, why: str = "") -> AssetError:
        return storage_failure(
            f"the key {excerpt(key, 80)!r} leads out of the folder {self._folder}{why}",
            type="validation_error",
            reason="invalid_payload",
            retry=False,
        )

    @contextmanager
    def _failures(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except Linked as error:
            why = f": {error.filename!r} is a symbolic link, and the store follows none"
            raise self._leads_out(key, why) from error
        except OSError as error:
            raise _failure(error, f"the asset {key!r} can't be {verb} in {self._folder}") from error


def _look(name: str, folder: int, cancel: CancelToken) -> Stored | None:
    """Return the file with a name in an open folder."""
    try:
        file = open_file(name, folder)
    except FileNotFoundError:
        return None
    with file:
        size, measured = 0, hashlib.sha256()
        while block := file.read(_BLOCK):
            cancel.check()
            size += len(block)
            measured.update(block)
        digest = measured.hexdigest()
        note = note_of(file, name, folder, digest)
    owner, workflow = (note.owner, note.workflow) if note is not None else (None, None)
    return Stored(size=size, sha256=digest, owner=owner, workflow=workflow, version=digest)


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
