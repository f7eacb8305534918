"""Build asset names that retries find again and that can't leave their folder. Pure.

A generated name is ``{job id}_{output index}[_r{N}].{extension}``. It is the same for all attempts, so that an attempt
finds an earlier upload. ``N`` is the workflow-level retry number (queue protocol 6.3): a rerun of a workflow step
stores a new result beside the old one.

``ctx.filename`` lets the submitter choose the name. Its extension is replaced by that of the actual format, and further
outputs get ``_{index}``. It has no retry suffix, as in the fleet (queue protocol 6.3), because the submitter expects
the result under that name after a rerun, too.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final
from urllib.parse import quote

import msgspec

from emp_trio.assets.media import extension
from emp_trio.errors import InvalidJob
from emp_trio.jobs import Job
from emp_trio.secrets import excerpt

LONGEST_KEY: Final = 1024
"""Maximum bytes of a key: the smallest limit of the stores (Azure 1,024 characters, S3 1,024 bytes)."""

LONGEST_SEGMENT: Final = 255
"""Maximum bytes of a path segment: the limit of file systems."""

RESERVED: Final = ".emp-trio-"
"""Prefix of unfinished files in a local store; not allowed in names of assets."""

_LONGEST_ID: Final = 100
_HASHED: Final = "sha256-"
_UNSAFE_IN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class AssetName(msgspec.Struct, frozen=True, kw_only=True):
    """Name of an asset in its container.

    Attributes:
        key: prefix and name, without a leading slash.
        name: name without the prefix.
        chosen: whether the submitter chose the name. A generated name belongs to one job.
    """

    key: str
    name: str
    chosen: bool


def asset_name(job: Job, index: int, media_type: str) -> AssetName:
    """Return the name of output ``index`` (from 0) of a job.

    Raises:
        InvalidJob: ``ctx.prefix`` or ``ctx.filename`` is unsafe, or the whole key is longer than 1,024 bytes.
    """
    if index < 0:
        raise ValueError(f"output index {index}: outputs are counted from 0")
    check_names(job)
    suffix = extension(media_type)
    if job.ctx.filename is not None:
        name = f"{_stem(job.ctx.filename)}{f'_{index}' if index else ''}.{suffix}"
    else:
        rerun = f"_r{job.ctx.workflow_attempt}" if job.ctx.workflow_attempt > 0 else ""
        name = f"{safe_id(job.id)}_{index}{rerun}.{suffix}"
    prefix = (job.ctx.prefix or "").rstrip("/")
    key = f"{prefix}/{name}" if prefix else name
    _check("the asset's key (prefix and file name)", key)
    return AssetName(key=key, name=name, chosen=job.ctx.filename is not None)


def check_names(job: Job) -> None:
    """Raise InvalidJob if ``ctx.prefix`` or ``ctx.filename`` is unsafe. Needs no output of the job."""
    if job.ctx.prefix is not None:
        if job.ctx.prefix.startswith("/"):
            raise InvalidJob("ctx.prefix is absolute: give it without a leading slash")
        _check("ctx.prefix", job.ctx.prefix.rstrip("/"))
    if job.ctx.filename is not None:
        _check("ctx.filename", job.ctx.filename)
        if not _stem(job.ctx.filename.rpartition("/")[2]):
            raise InvalidJob(f"ctx.filename has nothing before its extension: {_show(job.ctx.filename)}")


def safe_id(job_id: str) -> str:
    """Return a job id for use in names: unchanged if short and of ``A-Za-z0-9_.-``, else cleaned, with part of its
    digest."""
    cleaned = _UNSAFE_IN_ID.sub("-", job_id)[:_LONGEST_ID].strip(".")
    if cleaned == job_id and cleaned:
        return cleaned
    return f"{cleaned or 'job'}-{hashlib.sha256(job_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def owner_mark(job_id: str) -> str:
    """Return a job id as blob metadata: at most 200 ASCII characters, unique per id."""
    encoded = job_id.encode("utf-8", "surrogatepass")
    mark = quote(encoded, safe="")
    # Hash an id that looks like a hashed one, too, to keep them distinct.
    plain = len(mark) <= 200 and not mark.startswith(_HASHED)
    return mark if plain else _HASHED + hashlib.sha256(encoded).hexdigest()


def check_segment(what: str, text: str) -> None:
    """Raise InvalidJob if ``text`` is not a valid path segment; ``what`` names its field in the message."""
    if "/" in text:
        raise InvalidJob(f"{what} has a slash: {_show(text)}")
    _check(what, text)


def _stem(filename: str) -> str:
    """Return a file name without its extension: the part after the last dot of its last segment."""
    folder, slash, last = filename.rpartition("/")
    stem, dot, _ = last.rpartition(".")
    return folder + slash + (stem if dot else last)


def _check(what: str, path: str) -> None:
    size = len(path.encode("utf-8", "surrogatepass"))
    if size > LONGEST_KEY:
        raise InvalidJob(f"{what} is {size} bytes long; {LONGEST_KEY} are allowed")
    if (found := _FORBIDDEN.search(path)) is not None:
        raise InvalidJob(
            f"{what} holds the character U+{ord(found[0]):04X} at position {found.start() + 1}, which no store takes"
        )
    if "\\" in path:
        raise InvalidJob(f"{what} holds a backslash: {_show(path)}; separate folders by /")
    if path.startswith("/") or re.match("[A-Za-z]:/", path):
        raise InvalidJob(f"{what} is absolute: {_show(path)}")
    for segment in path.split("/"):
        if segment == "":
            raise InvalidJob(f"{what} has an empty part: {_show(path)}")
        if segment in (".", ".."):
            raise InvalidJob(f"{what} has the part {segment!r}: {_show(path)}; it must stay below the container")
        if segment[-1] in ". " or segment[0] == " ":
            raise InvalidJob(f"{what} has a part with a blank or dot at its end: {_show(path)}")
        if segment.startswith(RESERVED):
            raise InvalidJob(f"{what} has a part that begins with {RESERVED!r}, which is reserved: {_show(path)}")
        if (size := len(segment.encode())) > LONGEST_SEGMENT:
            raise InvalidJob(f"{what} has a part of {size} bytes; {LONGEST_SEGMENT} are allowed")


def _show(text: str) -> str:
    return repr(text if len(text) <= 80 else excerpt(text, 77) + "...")
