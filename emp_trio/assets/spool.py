"""Spool of generations whose upload failed, so that the next attempt only uploads them.

One uncompressed zip file per job, named by a digest of the job id, and written atomically. Truncated and modified
files, and files of another user or another request, are ignored. All functions block; call them in threads.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import structlog

from emp_trio.assets.config import KeepSettings
from emp_trio.connector_context import Generated, GeneratedFile
from emp_trio.folders import check_own, own_folder, private_opener
from emp_trio.jobs import Job

log = structlog.get_logger(__name__)

_BLOCK: Final = 2**20
_BIGGEST_HEADER: Final = 16 * 2**20
_HEADER: Final = "generation.json"
_SUFFIX: Final = ".kept"
_UNFINISHED: Final = ".unfinished"
_SWEEP_EVERY: Final = 3600.0


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The member ``generation.json``. The files follow as ``0``, ``1`` and so on."""

    job: str
    request: str
    data: dict[str, Any]
    media_types: list[str | None]


class GenerationSpool:
    """Spool folder of a machine; several processes may share it.

    Args:
        settings: a ``folder`` of None disables the spool.
    """

    def __init__(self, settings: KeepSettings) -> None:
        self._settings = settings
        self._swept: float | None = None

    def find(self, job: Job) -> Generated | None:
        """Return the output kept for this request of the job, or None. Removes expired files."""
        folder = self._settings.folder
        if folder is None:
            return None
        path = folder / _name(job)
        try:
            check_own(folder)
            if self._swept is None or time.monotonic() - self._swept > _SWEEP_EVERY:
                self._sweep(folder, room_for=0, spare=path.name)
            # Non-blocking: a pipe of that name must not block the thread.
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                    raise ValueError("it is not a file of this user")
                return _read(file, job, about.st_size)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("kept.ignored", path=str(path), error=str(error))
            return None

    def store(self, generated: Generated, job: Job, check: Callable[[], None]) -> Path:
        """Keep the output of a job, replacing what was kept for it before.

        Args:
            check: called between blocks; an error it raises aborts the call and leaves no file.

        Returns:
            path of the file.

        Raises:
            OSError: the output can't be kept; the message has the reason.
        """
        folder = self._settings.folder
        if folder is None:
            raise OSError("no folder is set for it (EMP_TRIO_KEEP_DIR)")
        size = sum(len(file.data) for file in generated.files)
        if size > self._settings.max_bytes:
            raise OSError(f"its {size} bytes are more than the {self._settings.max_bytes} that may be kept")
        own_folder(folder)
        path = folder / _name(job)
        self._sweep(folder, room_for=size, spare=path.name)
        unfinished = folder / f"{secrets.token_hex(8)}{_UNFINISHED}"
        try:
            with open(unfinished, "xb", opener=private_opener) as file:
                _write(file, generated, job, check)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        return path

    def forget(self, job: Job) -> None:
        """Remove the output kept for a job, if any."""
        if self._settings.folder is None:
            return
        path = self._settings.folder / _name(job)
        try:
            check_own(self._settings.folder)
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("kept.not_removed", path=str(path), error=error.strerror)

    def _sweep(self, folder: Path, *, room_for: int, spare: str) -> None:
        """Remove expired files, and the oldest files to make room; never ``spare``."""
        self._swept = time.monotonic()
        found = []
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _UNFINISHED)) and entry.name != spare:
                    with suppress(FileNotFoundError):
                        about = entry.stat(follow_symlinks=False)
                        found.append((about.st_mtime, about.st_size, Path(entry.path)))
        found.sort()
        total = sum(size for _, size, _ in found) + room_for
        oldest = time.time() - self._settings.max_age
        for changed, size, path in found:
            if changed < oldest or total > self._settings.max_bytes:
                log.warning("kept.dropped", path=str(path), bytes=size, hours=round((time.time() - changed) / 3600, 1))
                path.unlink(missing_ok=True)
                total -= size


def _name(job: Job) -> str:
    return hashlib.sha256(job.id.encode("utf-8", "surrogatepass")).hexdigest() + _SUFFIX


def _request(job: Job) -> str:
    """Return a digest of the request, to detect a job resubmitted under the same id with another request."""
    payload = job.payload if job.bare_payload is None else job.bare_payload
    asked = [job.type, payload, job.ctx.workflow_attempt]
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()


def _write(file: IO[bytes], generated: Generated, job: Job, check: Callable[[], None]) -> None:
    media_types = [output.media_type for output in generated.files]
    header = msgspec.json.encode(_Header(ascii(job.id), _request(job), generated.data, media_types))
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in ((_HEADER, header), *((str(n), f.data) for n, f in enumerate(generated.files))):
            member = zipfile.ZipInfo(name)
            member.file_size = len(content)  # selects the format for members above 2 GiB
            with archive.open(member, "w") as target:
                for at in range(0, len(content), _BLOCK):
                    check()
                    target.write(memoryview(content)[at : at + _BLOCK])


def _read(file: IO[bytes], job: Job, size: int) -> Generated:
    """Read a generation. Raise ValueError, or msgspec's errors, if :func:`_write` did not write it for this request."""
    try:
        with zipfile.ZipFile(file) as archive:
            # Uncompressed, so that no member can be larger than the file.
            if any(m.compress_type or m.file_size != m.compress_size for m in archive.infolist()):
                raise ValueError("it is not a kept generation")
            if archive.getinfo(_HEADER).file_size > min(size, _BIGGEST_HEADER):
                raise ValueError("its header is too large")
            header = msgspec.json.decode(archive.read(_HEADER), type=_Header)
            if header.request != _request(job):
                raise ValueError("it belongs to another request under the same job id")
            files = tuple(
                GeneratedFile(data=archive.read(str(number)), media_type=media_type)
                for number, media_type in enumerate(header.media_types)
            )
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"it is not a kept generation: {error}") from error
    return Generated(files=files, data=header.data)
