"""Finished generations whose upload failed: kept on this machine, so that the job's next attempt only uploads them.

One file per job, named by a digest of the job's id: a line with a digest of the header, the header (JSON), the bytes of
the files one after the other. A file is written beside its place and renamed into it; what is cut, altered, somebody
else's or of another request is ignored. Everything here blocks and is called in threads.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
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
_SUFFIX: Final = ".kept"
_UNFINISHED: Final = ".unfinished"
_SWEEP_EVERY: Final = 3600.0


class _File(msgspec.Struct, frozen=True):
    size: int
    sha256: str
    media_type: str | None


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job: str
    request: str
    data: dict[str, Any]
    files: list[_File]


class GenerationSpool:
    """The folder of one machine; several processes may share it.

    Args:
        settings: ``settings.folder`` None keeps nothing.
    """

    def __init__(self, settings: KeepSettings) -> None:
        self._settings = settings
        self._swept: float | None = None

    def find(self, job: Job) -> Generated | None:
        """What an earlier attempt kept for this very request of the job, or None. Old files go away on the way."""
        folder = self._settings.folder
        if folder is None:
            return None
        path = folder / _name(job)
        try:
            check_own(folder)
            if self._swept is None or time.monotonic() - self._swept > _SWEEP_EVERY:
                self._sweep(folder, room_for=0, spare=path.name)
            # Not blocking: a pipe of that name must not hold the thread.
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
        """Keep what a job made, in place of what was kept for it before.

        Args:
            check: called between blocks; what it raises ends the call and leaves nothing behind.

        Returns:
            the file that holds it.

        Raises:
            OSError: it can't be kept; the text says why.
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
                for block in _blocks(_encoded(generated, job), *(file.data for file in generated.files)):
                    check()
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        return path

    def forget(self, job: Job) -> None:
        """Remove what was kept for a job, if anything was."""
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
        """Remove files of ours that are too old, and the oldest ones where the space is needed; never ``spare``."""
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
    """A digest of what was asked for: a job that comes again under its id with another request is another one."""
    payload = job.payload if job.bare_payload is None else job.bare_payload
    asked = [job.type, payload, job.ctx.workflow_attempt]
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()


def _encoded(generated: Generated, job: Job) -> bytes:
    files = [_File(len(f.data), hashlib.sha256(f.data).hexdigest(), f.media_type) for f in generated.files]
    header = msgspec.json.encode(_Header(ascii(job.id), _request(job), generated.data, files))
    return f"{hashlib.sha256(header).hexdigest()} {len(header)}\n".encode() + header


def _read(file: IO[bytes], job: Job, size: int) -> Generated:
    """Raises ValueError, or msgspec's errors, where the file is not what :func:`_encoded` and its files make."""
    digest, _, length = file.readline(100).decode("ascii").strip().partition(" ")
    if not length.isdigit() or int(length) > _BIGGEST_HEADER:
        raise ValueError("it is not a kept generation")
    encoded = file.read(int(length))
    if hashlib.sha256(encoded).hexdigest() != digest:
        raise ValueError("its header is damaged")
    header = msgspec.json.decode(encoded, type=_Header)
    if header.request != _request(job):
        raise ValueError("it belongs to another request under the same job id")
    if file.tell() + sum(f.size for f in header.files) != size:
        raise ValueError("it is cut")
    files = []
    for about in header.files:
        data = file.read(about.size)
        if hashlib.sha256(data).hexdigest() != about.sha256:
            raise ValueError("it is damaged")
        files.append(GeneratedFile(data=data, media_type=about.media_type))
    return Generated(files=tuple(files), data=header.data)


def _blocks(*contents: bytes) -> Any:
    for content in contents:
        view = memoryview(content)
        for at in range(0, len(view), _BLOCK):
            yield view[at : at + _BLOCK]
